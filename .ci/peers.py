#!/usr/bin/env python3
"""Tries Fanfare with peers in other languages: on grpcio, grpc-go, grpc-java, grpc-js, and Envoy.

`SCENARIOS` says which scenario is tried with which peers: tool services or callers, all
with the default settings of their libraries. `bash .ci/peers.sh FANFARE NAME[:PEER]...`
runs some of them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import answers
import clients
import neighbours
from processes import Processes
from rig import Rig

TOOLS = ["python", "go", "java", "node"]
# Those that guard themselves against resets, or might.
GUARDED = ["go", "java", "node", "tonic", "envoy"]
# What is tried, with whom, and what `--full` has instead of the defaults.
SCENARIOS = [
    (answers.hedged_pushback, ["python"], {}),
    (answers.unknown_health, answers.CALLERS, {}),
    (answers.no_reflection, ["grpcurl"], {}),
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
    (clients.agents, clients.LANGUAGES, {}),
    (clients.refused_agent, clients.LANGUAGES, {}),
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
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    programs = [f"clients-{language}" for language in clients.LANGUAGES]
    for option in ("fanfare", "grpcurl", "envoy", "go", "java", "node", *programs):
        parser.add_argument(f"--{option}", default="")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("only", nargs="*", metavar="NAME[:PEER]")
    options = parser.parse_args()
    failed, passed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder))
        try:
            rig = Rig(options, processes, Path(folder))
            for scenario, peers, full in SCENARIOS:
                for peer in peers:
                    name = f"{scenario.__name__}:{peer}"
                    if options.only and not {name, scenario.__name__} & set(options.only):
                        continue
                    if not rig.available(peer):
                        print(f"not run: {name}", flush=True)
                        continue
                    keywords = full if options.full else {}
                    ok = attempt(rig, name, lambda: scenario(rig, peer, **keywords))
                    passed += ok
                    failed += [] if ok else [name]
        finally:
            processes.kill()
    print(f"{passed} passed, {len(failed)} failed", *failed)
    sys.exit(bool(failed))


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
