#!/usr/bin/env python3
"""Tries Fanfare with programs of others: gRPC in other languages, grpcurl, a collector, Envoy.

`SCENARIOS` says which scenario is tried with which peers: tool services or callers, all
with the default settings of their libraries. `bash .ci/peers.sh FANFARE NAME[:PEER]...`
runs some of them, `--full` with as many calls as they were once shown with.
"""

import sys
import time

import agents
import answers
import builds
import clients
import definitions
import grpcurl
import hostile
import mapping
import methods
import neighbours
import proxy
import telemetry
from rig import Rig, processes

TOOLS = ["python", "go", "java", "node"]
# Those that guard themselves against resets, or might.
GUARDED = ["go", "java", "node", "tonic", "envoy"]
# What is tried, with whom, and what `--full` has instead of the defaults.
SCENARIOS = [
    (grpcurl.grpcurl_sees, ["old", "new"], {}),
    (telemetry.collected, ["http/protobuf", "grpc"], {}),
    (proxy.proxied, ["tonic"], {}),
    (answers.hedged_pushback, ["python"], {}),
    (answers.unknown_health, answers.CALLERS, {}),
    (answers.no_reflection, ["old"], {}),
    (answers.compressed_answers, ["python"], {}),
    (answers.compressed_requests, answers.CALLERS, {}),
    (answers.compressed_both_ways, TOOLS, {}),
    (answers.long_headers, answers.CALLERS, {}),
    (answers.two_messages, answers.CALLERS, {}),
    (answers.list_of_addresses, ["python"], {}),
    (answers.no_json, ["python", "go"], {}),
    (answers.large_numbers, ["python", "go"], {}),
    (answers.summary, ["python"], {}),
    (answers.expiries, TOOLS, {"count": 1000}),
    (answers.lost_replica, ["python"], {}),
    (agents.agents, clients.LANGUAGES, {}),
    (agents.turns, ["tonic"], {}),
    (agents.same_prompt, ["tonic"], {}),
    (agents.gemini, ["tonic"], {}),
    (agents.refused, [*agents.AGENTS], {}),
    (agents.lost, ["python"], {}),
    (agents.out_of_time, ["tonic"], {}),
    (definitions.definitions, [*definitions.FORMATS], {}),
    (clients.tool_service, clients.LANGUAGES, {}),
    (clients.given_up, ["python"], {}),
    (neighbours.large_context, ["python", "java"], {}),
    (neighbours.frozen_replica, ["python"], {"seconds": 30}),
    (neighbours.long_call, ["java", "go", "python"], {"seconds": 360, "keepalive": ""}),
    (neighbours.failing_batches, ["python", *GUARDED], {"cancels": 100_000}),
    (neighbours.few_large_requests, GUARDED, {"cancels": 100_000}),
    (neighbours.many_small_requests, GUARDED, {"cancels": 100_000}),
    (neighbours.unread_streams, ["go"], {}),
    (neighbours.unread_answers, ["go"], {}),
    *methods.SCENARIOS,
    *mapping.SCENARIOS,
    *hostile.SCENARIOS,
    *builds.SCENARIOS,
]


def main() -> None:
    only = set(sys.argv[1:]) - {"--full"}
    failed, passed = [], 0
    with processes() as started:
        rig = Rig(started)
        for scenario, peers, full in SCENARIOS:
            for peer in peers:
                name = f"{scenario.__name__}:{peer}"
                if only and not {name, scenario.__name__} & only:
                    continue
                if not rig.available(peer):
                    print(f"not run: {name}", flush=True)
                    continue
                keywords = full if "--full" in sys.argv else {}
                ok = attempt(rig, name, lambda: scenario(rig, peer, **keywords))
                passed += ok
                failed += [] if ok else [name]
    print(f"{passed} passed, {len(failed)} failed", *failed)
    sys.exit(bool(failed) or not passed)


def attempt(rig: Rig, name: str, scenario) -> bool:
    start = time.monotonic()
    try:
        scenario()
        said = "ok"
    except (Exception, SystemExit) as error:
        said = f"FAILED: {type(error).__name__}: {str(error)[:1500]}"
    rig.end_scenario()
    print(f"{name}: {said} ({time.monotonic() - start:.1f} s)", flush=True)
    return said == "ok"


if __name__ == "__main__":
    main()
