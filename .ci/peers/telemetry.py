"""A collector, rotel, that prints what it gets: of a batch with a trace context of its own, and with
every printable ASCII character in names and values of resource attributes."""

import re
import string

import grpc

from rig import PYTHON, Rig, free_ports, request, run

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
BATCH = [
    {"id": "a", "name": "echo", "arguments": {"city": "Bern"}},
    {"id": "b", "name": "fail", "arguments": {"code": 5, "message": "no such city"}},
    {"id": "c", "name": "no_such_tool"},
]
ENCODED = [f"%{ord(c):02x}" for c in string.digits + string.ascii_letters + string.punctuation + " "]
ATTRIBUTES = ["k8s.pod.name=fanfare-0", *(f"{c}={c},a{c}b=x{c}" for c in ENCODED)]
SERVER = "fanfare.v1.OrchestratorService/ExecuteTools"
CLIENT = "fanfare.v1.ToolService/CallTool"
# What a trace has: name, kind, the name of the parent.
TREE = {
    (SERVER, "SERVER", PARENT),
    ("execute_tool echo", "INTERNAL", SERVER),
    ("execute_tool fail", "INTERNAL", SERVER),
    ("execute_tool _OTHER", "INTERNAL", SERVER),
    (CLIENT, "CLIENT", "execute_tool echo"),
    (CLIENT, "CLIENT", "execute_tool fail"),
}
METRICS = [
    "rpc.server.call.duration", "rpc.client.call.duration", "gen_ai.execute_tool.duration",
    "fanfare.active_requests", "fanfare.in_flight_calls", "fanfare.tool.active_calls",
    "fanfare.request.batch.size", "fanfare.telemetry.dropped_spans",
]  # fmt: skip


def collected(rig: Rig, peer: str) -> None:
    """The collector prints one trace with all spans in their places, and our metrics."""
    grpc_port, http = free_ports(2)
    rig.processes.start(
        "fanfare-collector",
        [f"{PYTHON}/rotel/rotel-agent", "start", "--pid-file", rig.folder / "pid",
         "--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}", "--otlp-http-endpoint", f"127.0.0.1:{http}",
         "--exporter", "blackhole", "--batch-timeout", "50ms", "--debug-log", "traces",
         "--debug-log", "metrics", "--debug-log-verbosity", "detailed"],
    )  # fmt: skip
    environment = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": peer,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{grpc_port if peer == 'grpc' else http}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(ATTRIBUTES),
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    fanfare = rig.fanfare(rig.tool("tonic"), echo="", fail="", env=environment)
    fanfare.execute(BATCH, metadata=[CONTEXT])
    refused = fanfare.stub.ExecuteTools.future(request([])).exception()
    assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT, refused

    says = lambda what: rig.processes.says("fanfare-collector", what)
    says(lambda text: tree(text) == TREE)
    for what in [*(rf"Name\s*: {re.escape(m)}$" for m in METRICS), "service.name: Str.fanfare.", "k8s.pod.name: Str.fanfare-0."]:
        says(lambda text: re.search(what, text, re.M))
    for metric in METRICS:
        assert re.search(rf"^{metric.replace('.', '_')}(_\w+)?(\{{| )", fanfare.page, re.M), metric
    # Beyond the syntax promtool has opinions on names; the conventions have others.
    lint = run(["promtool", "check", "metrics"], input=fanfare.page)
    assert lint.returncode in (0, 3), lint
    rig.processes.stop(fanfare.name)


def tree(printed: str) -> set:
    """The spans of our trace: name, kind, the parent's name (or its id)."""
    field = lambda block, name: re.search(rf"^ *{name} *: (.*)$", block, re.M)[1].strip()
    blocks = [b for b in re.split(r"^Span #\d+", printed, flags=re.M)[1:] if TRACE in b]
    names = {field(b, "ID"): field(b, "Name") for b in blocks}
    parent = lambda b: names.get(field(b, "Parent ID"), field(b, "Parent ID"))
    kind = lambda b: field(b, "Kind").upper().removeprefix("SPAN_KIND_")
    return {(field(b, "Name"), kind(b), parent(b)) for b in blocks}
