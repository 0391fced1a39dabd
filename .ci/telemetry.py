#!/usr/bin/env python3
"""Sends our telemetry to a real collector, and reads our metrics page.

Runs the service with its demo tools, a collector (rotel) that prints what it
gets, and a batch by grpcurl with a trace context of its own; once by gRPC, once by
HTTP. Every printable ASCII character is in names and values of resource attributes. The
collector must print one trace of it with all spans in their places, and our metrics; promtool
must find nothing wrong with `/metrics`, which must have the same metrics, nor with
the queries of telemetry.md, which must be of metrics that are there.
"""

import json
import re
import string
import subprocess
import urllib.request
from pathlib import Path

from processes import LIMIT, Processes, fail, free_ports, run

PAGE = Path(__file__).parent.parent / "deploy/observability/telemetry.md"
TRACES = ["0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c"]
PARENT = "b7ad6b7169203331"
BATCH = {
    "calls": [
        {"id": "a", "name": "echo", "arguments": {"city": "Bern"}},
        {"id": "b", "name": "fail", "arguments": {"code": 5, "message": "no such city"}},
        {"id": "c", "name": "no_such_tool"},
    ]
}
BAD = {"calls": []}
ENCODED = [f"%{ord(c):02x}" for c in string.digits + string.ascii_letters + string.punctuation + " "]
ATTRIBUTES = ["k8s.pod.name=fanfare-0", *(f"{c}={c},a{c}b=x{c}" for c in ENCODED)]
SERVER = "fanfare.v1.OrchestratorService/ExecuteTools"
CLIENT = "fanfare.v1.ToolService/CallTool"
# What the collector must print: name, kind, the name of the parent.
TREE = {
    (SERVER, "SERVER", PARENT),
    ("execute_tool echo", "INTERNAL", SERVER),
    ("execute_tool fail", "INTERNAL", SERVER),
    ("execute_tool _OTHER", "INTERNAL", SERVER),
    (CLIENT, "CLIENT", "execute_tool echo"),
    (CLIENT, "CLIENT", "execute_tool fail"),
}
METRICS = [
    "rpc.server.call.duration",
    "rpc.client.call.duration",
    "gen_ai.execute_tool.duration",
    "fanfare.active_requests",
    "fanfare.in_flight_calls",
    "fanfare.tool.active_calls",
    "fanfare.request.batch.size",
    "fanfare.telemetry.dropped_spans",
]


def tree(printed: str, trace: str) -> set:
    """The spans of our trace: name, kind, the parent's name (or its id). Without
    those of reflection, which grpcurl asks first."""
    field = lambda block, name: re.search(rf"^ *{name} *: (.*)$", block, re.M)[1].strip()
    blocks = [b for b in re.split(r"^Span #\d+", printed, flags=re.M)[1:] if trace in b]
    names = {field(b, "ID"): field(b, "Name") for b in blocks}
    return {
        (
            field(b, "Name"),
            field(b, "Kind").upper().removeprefix("SPAN_KIND_"),
            names.get(field(b, "Parent ID"), field(b, "Parent ID")),
        )
        for b in blocks
        if not field(b, "Name").startswith("grpc.")
    }


def prometheus_name(metric: str) -> str:
    return metric.replace(".", "_")


def promql(markdown: str) -> list[str]:
    """The queries of a page, one a line."""
    blocks = "".join(re.findall(r"^```promql$(.*?)^```$", markdown, re.M | re.S))
    return [line for line in blocks.splitlines() if line and not line.startswith("#")]


def check_promql(promtool: str, queries: list[str], folder: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = folder / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "readme", "rules": rules}]}))
    command = [promtool, "check", "rules", str(file)]
    check = subprocess.run(command, capture_output=True, text=True)
    if check.returncode or f"{len(queries)} rules found" not in check.stdout:
        fail(f"promtool can't read the queries of telemetry.md:\n{check.stdout}{check.stderr}")


def check(options, processes: Processes, folder: Path) -> None:
    grpc, http, listen, admin, tools = free_ports(5)
    processes.start(
        "collector",
        [options.collector, "start", "--pid-file", str(folder / "pid"),
         "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}",
         "--exporter", "blackhole", "--batch-timeout", "50ms", "--debug-log", "traces",
         "--debug-log", "metrics", "--debug-log-verbosity", "detailed"],
    )  # fmt: skip
    names = ("echo", "fail")
    config = folder / "fanfare.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:{listen}"\nadmin_listen = "127.0.0.1:{admin}"\n'
        f'[services.demo]\nendpoint = "http://127.0.0.1:{tools}"\n'
        + "".join(f'[tools.{name}]\nservice = "demo"\n' for name in names)
    )
    processes.start("tools", [options.fanfare, "demo-tools", "--listen", f"127.0.0.1:{tools}"])
    processes.wait_for("tools", "start", lambda text: "listening on" in text)
    environment = {
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(ATTRIBUTES),
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    serve = [options.fanfare, "serve", "--config", str(config)]

    def call(request: dict, *more: str) -> subprocess.CompletedProcess:
        command = [options.grpcurl, "-plaintext", "-max-time", "20", *more]
        command += ["-d", json.dumps(request), f"127.0.0.1:{listen}", SERVER]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT
        )

    for trace, protocol, port in zip(TRACES, ("http/protobuf", "grpc"), (http, grpc)):
        environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
        if "fanfare" in processes.running:
            processes.stop("fanfare")
        before = len(processes.output("collector"))
        processes.start("fanfare", serve, environment)
        ready = f"listening on 127.0.0.1:{listen}"
        processes.wait_for("fanfare", "start", lambda text: ready in text)
        answer = call(BATCH, "-H", f"traceparent: 00-{trace}-{PARENT}-01")
        if answer.returncode:
            fail(f"grpcurl failed:\n{answer.stderr}")
        if not call(BAD).returncode:
            fail("a request without calls was not refused")

        printed = lambda what, found: processes.wait_for(
            "collector", f"{what} by {protocol}", lambda text: found(text[before:])
        )
        printed(f"tree {TREE}", lambda text: tree(text, trace) == TREE)
        for metric in METRICS:
            found = rf"Name\s*: {re.escape(metric)}$"
            printed(metric, lambda text: re.search(found, text, re.M))
        for attribute in ("service.name: Str(fanfare)", "k8s.pod.name: Str(fanfare-0)"):
            printed(attribute, lambda text: attribute in text)
        many = f"{len(TREE)} spans in their places and {len(METRICS)} metrics"
        print(f"by {protocol} the collector printed {many}")

    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=LIMIT) as reply:
        page = reply.read().decode()
    queries = promql(PAGE.read_text())
    queried = set(re.findall(r"\b(\w+)[\[{]", "".join(queries)))
    for metric in [*map(prometheus_name, METRICS), *queried]:
        if not re.search(rf"^{metric}(_\w+)?(\{{| )", page, re.M):
            fail(f"/metrics has no {metric}:\n{page}")
    if options.promtool:
        check_promql(options.promtool, queries, folder)
        # Beyond the syntax it has opinions on names; the conventions have others.
        lint = subprocess.run(
            [options.promtool, "check", "metrics"], input=page, capture_output=True, text=True
        )
        if lint.returncode not in (0, 3):
            fail(f"promtool can't read /metrics:\n{lint.stdout}{lint.stderr}")
        opinions = lint.stdout + lint.stderr
        read = f"{len(queries)} queries and {len(page.splitlines())} lines of /metrics"
        print(f"promtool read {read}; {opinions or 'no'} advice")
    processes.stop("fanfare")


if __name__ == "__main__":
    required = {
        "fanfare": "the binary to test",
        "collector": "rotel's agent",
        "grpcurl": "what to call it with",
    }
    run(__doc__, required, check, promtool="what to check /metrics with")
