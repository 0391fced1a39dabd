"""Scenarios with Envoy, with its default limits, between Fanfare and the tools."""

import json
import threading
import time

from rig import Fanfare, Rig, at_once, count_of, free_ports

REQUESTS, CALLS = 8, 250
# Behind a proxy each lost call comes back as an UNAVAILABLE of its own, and so does
# each that comes while the tools are away: that takes a larger budget, and patience.
BUDGET = "retry_budget.max_tokens = 2000"
# Envoy takes 1,024 requests at a time.
PLACES = "max_concurrency = 1000\nmax_queue = 2000\n"
PATIENT = 'idempotent = true\nretry.max_attempts = 5\nretry.initial_backoff = "200ms"\n'


def before_tools(rig: Rig) -> tuple[Fanfare, int]:
    """What is not idempotent must not run twice; what is may. Also the tools' port."""
    envoy, tools = free_ports(2)
    start_tools(rig, "tools", tools)
    rig.start_envoy("envoy", envoy, tools)
    return rig.fanfare(envoy, service=BUDGET, sleep=PLACES + PATIENT, echo=PLACES), tools


def start_tools(rig: Rig, name: str, port: int) -> None:
    rig.start_tool("tonic", name, port, "--log-format", "json")


def of_ids(tool: str, prefix: str, count: int, **arguments) -> list[dict]:
    return [{"id": f"{prefix}{i}", "name": tool, "arguments": arguments} for i in range(count)]


def proxied(rig: Rig, peer: str) -> None:
    """2,000 calls in flight at a time: those over `max_concurrency` wait their turn, and all pass."""
    fanfare, tools = before_tools(rig)
    most, done = [], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            names = "fanfare_tool_active_calls", "fanfare_tool_queue_length"
            most.append(sum(map(fanfare.metric, names)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    execute = lambda i: fanfare.execute(of_ids("sleep", f"r{i}-", CALLS, seconds=2), stub=fanfare.new_stub())
    results = sum(at_once(REQUESTS, execute), [])
    done.set()
    watcher.join()
    failed = [result for result in results if "observation" not in result]
    assert not failed and len(results) == REQUESTS * CALLS, f"{len(failed)} failed: {failed[:1]}"
    assert max(most) >= REQUESTS * CALLS, f"only {max(most):.0f} calls were in flight at a time"
    restart_under_load(rig, fanfare, tools)
    rig.processes.stop(fanfare.name)


def restart_under_load(rig: Rig, fanfare: Fanfare, port: int) -> None:
    """The tools are killed and started again: no idempotent call fails, no other runs twice."""

    def kill_and_start() -> None:
        time.sleep(1)
        rig.processes.kill("tools")
        time.sleep(0.5)
        start_tools(rig, "tools again", port)

    restart = threading.Thread(target=kill_and_start)
    restart.start()
    results: list[dict] = []
    for turn in range(40):
        batches = [of_ids("sleep", f"s{turn}-{i}-", 25, seconds=0.1) for i in range(2)]
        batches += [of_ids("echo", f"e{turn}-{i}-", 25) for i in range(2)]
        results += sum(at_once(4, lambda i: fanfare.execute(batches[i])), [])
        if turn >= 10 and not restart.is_alive():
            break
    restart.join()
    lost = [r for r in results if "observation" not in r]
    failed = [r for r in lost if r["name"] == "sleep" or r["error"]["code"] != 14]
    assert not failed, f"{len(failed)} idempotent calls failed, or others not UNAVAILABLE: {failed[0]}"
    lines = (rig.processes.output("tools") + rig.processes.output("tools again")).splitlines()
    started = [line for line in map(json.loads, lines) if line.get("message") == "call started"]
    executed = count_of([line for line in started if line["tool"] == "echo"], lambda line: line["id"])
    doubled = [call for call, count in executed.items() if count > 1]
    assert executed and not doubled, f"{len(doubled)} calls that are not idempotent ran twice: {doubled[:5]}"
    again = sum(result.get("attempts", 0) > 1 for result in results)
    print(f"  restart: {len(results)} calls, {again} took more than one attempt, {len(lost)} others UNAVAILABLE")
