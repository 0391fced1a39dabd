#!/usr/bin/env python3
"""Calls tools through Envoy with its default limits.

2,000 calls in flight at a time all pass: Envoy takes 1,024 requests at a time, so
the tool's `max_concurrency` is 1,000 and the others wait their turn. Then the tools
behind Envoy are killed and started again under load: no call of an idempotent tool
fails, and none of another tool is executed twice.
"""

import collections
import json
import re
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

from processes import LIMIT, Processes, fail, free_ports, run

EXECUTE = "fanfare.v1.OrchestratorService/ExecuteTools"
REQUESTS, CALLS = 8, 250
# Behind a proxy each lost call comes back as an UNAVAILABLE of its own, and so does
# each that comes while the tools are away: that takes a larger budget, and patience.
SERVICE_KEYS = "retry_budget.max_tokens = 2000\n"
# What is not idempotent must not run twice; what is may.
TOOLS = {
    "sleep": 'idempotent = true\nretry.max_attempts = 5\nretry.initial_backoff = "200ms"\n',
    "echo": "idempotent = false\n",
}


def envoy_config(listen: int, tools: int) -> str:
    """The smallest that forwards HTTP/2 to HTTP/2; all limits are Envoy's own."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "tools",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{
            "name": "tools", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "tools", "timeout": "0s"}}],
        }]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type":
                "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    }  # fmt: skip
    cluster = {
        "name": "tools",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "tools",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(tools)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3"
                ".HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "calls",
        "address": socket_address(listen),
        "filter_chains": [{"filters": filters}],
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def socket_address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Rig:
    """Fanfare, Envoy and the tools."""

    def __init__(self, options, processes: Processes, folder: Path):
        self.options, self.processes = options, processes
        self.envoy, self.listen, self.admin, self.tools = free_ports(4)
        config = folder / "fanfare.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{self.listen}"\nadmin_listen = "127.0.0.1:{self.admin}"\n'
            f'[services.demo]\nendpoint = "http://127.0.0.1:{self.envoy}"\n{SERVICE_KEYS}'
            + "".join(
                f'[tools.{name}]\nservice = "demo"\nmax_concurrency = 1000\nmax_queue = 2000\n{keys}'
                for name, keys in TOOLS.items()
            )
        )
        self.start_tools("tools")
        command = [options.envoy, "--config-yaml", envoy_config(self.envoy, self.tools)]
        command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "info"]
        processes.start("envoy", command)
        processes.wait_for("envoy", "start", lambda text: "starting main dispatch loop" in text)
        processes.start("fanfare", [options.fanfare, "serve", "--config", str(config)])
        processes.wait_for("fanfare", "start", lambda text: f":{self.listen}" in text)

    def start_tools(self, name: str) -> None:
        command = [self.options.fanfare, "demo-tools", "--listen", f"127.0.0.1:{self.tools}"]
        self.processes.start(name, [*command, "--log-format", "json"])
        self.processes.wait_for(name, "start", lambda text: "listening on" in text)

    def execute(self, calls: list[dict]) -> list[dict]:
        """The results of one request."""
        command = [self.options.grpcurl, "-plaintext", "-max-time", str(LIMIT), "-d", "@"]
        command += ["-max-msg-sz", str(64 << 20), f"127.0.0.1:{self.listen}", EXECUTE]
        done = subprocess.run(
            command, input=json.dumps({"calls": calls}), capture_output=True, text=True
        )
        if done.returncode:
            fail(f"grpcurl failed:\n{done.stderr}")
        return json.loads(done.stdout)["results"]

    def execute_all(self, requests: list[list[dict]]) -> list[dict]:
        """The results of requests that are sent at once."""
        results: list[dict] = []
        work = lambda calls: results.extend(self.execute(calls))
        threads = [threading.Thread(target=work, args=(calls,)) for calls in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(results) != sum(map(len, requests)):
            fail(f"{len(results)} results of {sum(map(len, requests))} calls")
        return results

    def metric(self, name: str) -> float:
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=LIMIT)
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page.read().decode(), re.M)
        return sum(map(float, found))


def calls(tool: str, prefix: str, count: int, **arguments) -> list[dict]:
    return [{"id": f"{prefix}{i}", "name": tool, "arguments": arguments} for i in range(count)]


def two_thousand_at_a_time(rig: Rig) -> None:
    most = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            running = rig.metric("fanfare_tool_active_calls")
            most = max(most, running + rig.metric("fanfare_tool_queue_length"))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    results = rig.execute_all(
        [calls("sleep", f"r{i}-", CALLS, seconds=2) for i in range(REQUESTS)]
    )
    connections = rig.metric("fanfare_tool_service_connections")
    done.set()
    watcher.join()
    failed = [result for result in results if "observation" not in result]
    if failed:
        fail(f"{len(failed)} of {len(results)} calls failed: {failed[0]}")
    if most < REQUESTS * CALLS:
        fail(f"only {most:.0f} calls were in flight at a time")
    print(f"{len(results)} calls in flight at a time: all OK, over {connections:.0f} connections")


def restart_under_load(rig: Rig) -> None:
    def kill_and_start() -> None:
        time.sleep(1)
        rig.processes.running["tools"].kill()
        rig.processes.running["tools"].wait()
        time.sleep(0.5)
        rig.start_tools("tools again")

    restart = threading.Thread(target=kill_and_start)
    restart.start()
    results: list[dict] = []
    for turn in range(40):
        requests = [calls("sleep", f"s{turn}-{i}-", 25, seconds=0.1) for i in range(2)]
        requests += [calls("echo", f"e{turn}-{i}-", 25) for i in range(2)]
        results += rig.execute_all(requests)
        if turn >= 10 and not restart.is_alive():
            break
    restart.join()
    failed = [r for r in results if r["name"] == "sleep" and "observation" not in r]
    if failed:
        fail(f"{len(failed)} idempotent calls failed: {json.dumps(failed[0])}")
    executed = collections.Counter(
        line["id"]
        for name in ("tools", "tools again")
        for line in map(json.loads, rig.processes.output(name).splitlines())
        if line.get("message") == "call started" and line.get("tool") == "echo"
    )
    doubled = [call for call, count in executed.items() if count > 1]
    if doubled:
        fail(f"{len(doubled)} calls that are not idempotent ran twice: {doubled[:5]}")
    again = sum(result.get("attempts", 0) > 1 for result in results)
    lost = [r for r in results if r["name"] == "echo" and "observation" not in r]
    for result in lost:
        if result["error"]["code"] != 14:
            fail(f"a lost call is not UNAVAILABLE: {json.dumps(result)}")
    print(
        f"restart under load: {len(results)} calls, 0 idempotent ones failed, {again} took more "
        f"than one attempt, {len(lost)} others told UNAVAILABLE, 0 ran twice"
    )


def check(options, processes: Processes, folder: Path) -> None:
    rig = Rig(options, processes, folder)
    two_thousand_at_a_time(rig)
    restart_under_load(rig)
    processes.stop("fanfare")


if __name__ == "__main__":
    required = {
        "fanfare": "the binary to test",
        "envoy": "Envoy",
        "grpcurl": "what to call it with",
    }
    run(__doc__, required, check)
