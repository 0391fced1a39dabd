#!/usr/bin/env python3
"""The stack of deploy/compose.yaml as processes on loopback, without an engine: `stack.py COLLECTOR
PROJECT`, the latter being compose.yaml as compose understands it, in JSON.

It opens nothing to the network, and its configuration files are used as they are but for
addresses, intervals and the one limit that makes it easy to reach. Calls of every kind are made,
services are killed and the collector is stopped, until every metric was seen to move. Then:

- a trace of a batch came through the collector, with all its spans in their places;
- every series that a rule, a panel or a page asks for is one that there was, with
  its labels and their values, and all of telemetry.md's metrics were on the page;
- every expression can be evaluated, and those of rules and panels have data;
- gauges went up, and each alert fired that a minute can bring about.
"""

import json
import re
import sys
import urllib.parse
from pathlib import Path

import grpc
import promql_parser

from rig import (
    FANFARE,
    ROOT,
    Fanfare,
    Rig,
    calls,
    fail,
    free_ports,
    get,
    processes,
    reason,
    request,
    same,
    wait_for,
)
from telemetry import BATCH, CONTEXT, TRACE, TREE

COLLECTOR, PROJECT = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
DEPLOY = ROOT / "deploy"
OBSERVABILITY = DEPLOY / "observability"
IN_FLIGHT = 64
LIMITS = f"\n[limits]\nmax_calls_per_request = {IN_FLIGHT}\nmax_in_flight_calls = {IN_FLIGHT}\n"
SINK = """
receivers: {otlp: {protocols: {grpc: {endpoint: "jaeger:4317"}}}}
exporters: {file: {path: "FILE", flush_interval: 100ms}}
service:
  pipelines: {traces: {receivers: [otlp], exporters: [file]}}
  telemetry: {metrics: {level: none}}
"""
KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}
# Gauges of which one sample at least must have been above zero.
MOVED = [
    "fanfare_active_requests", "fanfare_in_flight_calls", "fanfare_tool_active_calls",
    "fanfare_tool_queue_length", "fanfare_tool_service_breaker_state",
    "fanfare_tool_service_connections", "fanfare_tool_service_ejected_addresses",
]  # fmt: skip


def check_project() -> None:
    for name, service in PROJECT["services"].items():
        problems = {
            "its image is not pinned to a version": not re.search(r":v?\d+\.\d+\.\d+$", service["image"]),
            "a port is open to the network": any(p.get("host_ip") != "127.0.0.1" for p in service.get("ports", [])),
            "it is writable": not service.get("read_only"),
            "it has capabilities": service.get("cap_drop") != ["ALL"],
            "it runs as root": service.get("user", "0").split(":")[0] in ("0", "root"),
            "a volume is no file, or writable": any(
                not (Path(v["source"]).is_file() and v.get("read_only")) for v in service.get("volumes", [])
            ),
        }
        if found := [problem for problem, there in problems.items() if there]:
            fail(f"compose.yaml: {name}: {found}")
    pinned = PROJECT["services"]["collector"]["image"].split(":")[1]
    if f"version: {pinned}" not in (Path(__file__).parent / "collector.yaml").read_text():
        fail(f"compose.yaml has collector {pinned}, the checks have another")


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int):
        self.base = f"http://127.0.0.1:{port}"

    def api(self, path: str, **parameters):
        answer = get(f"{self.base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(answer)["data"] if answer else fail(f"Prometheus refuses {parameters}")

    def query(self, expression: str) -> list:
        return self.api("query", query=expression)["result"]

    def has(self, metric: str, *matchers: str) -> bool:
        selector = "{" + ",".join([f'__name__="{metric}"', *matchers]) + "}"
        return bool(self.api("series", **{"match[]": selector}))


class Stack:
    def __init__(self, processes):
        self.processes, self.folder, self.rig = processes, processes.folder, Rig(processes)
        (self.listen, self.admin, self.web, self.sink,
         self.otlp, self.otlp_http, self.health, self.own, *self.tools) = free_ports(10)  # fmt: skip
        self.prometheus = Prometheus(self.web)
        self.traces = self.folder / "traces.json"
        # What is elsewhere on loopback and in a minute.
        self.replaced = {
            "FILE": str(self.traces),
            "0.0.0.0:4317": f"127.0.0.1:{self.otlp}",
            "0.0.0.0:4318": f"127.0.0.1:{self.otlp_http}",
            "0.0.0.0:13133": f"127.0.0.1:{self.health}",
            "0.0.0.0:50051": f"127.0.0.1:{self.listen}",
            "0.0.0.0:9464": f"127.0.0.1:{self.admin}",
            "host: 0.0.0.0": "host: 127.0.0.1",
            "port: 8888": f"port: {self.own}",
            "collector:4317": f"127.0.0.1:{self.otlp}",
            "collector:8888": f"127.0.0.1:{self.own}",
            "fanfare:9464": f"127.0.0.1:{self.admin}",
            "jaeger:4317": f"127.0.0.1:{self.sink}",
            "${env:TRACES_ENDPOINT}": f"127.0.0.1:{self.sink}",
            'endpoint = "http://demo-tools:50051"': f"endpoints = {[f'http://127.0.0.1:{port}' for port in self.tools]}",
            "/etc/prometheus/rules.yml": str(self.folder / "rules.yml"),
            "interval: 5s": "interval: 500ms",
        }

    # The processes.

    def start(self) -> None:
        self.start_collector("sink", SINK)
        # The configuration for Kubernetes, without its one part that needs a cluster. That it
        # starts is what it can show here; validating it does not look at all of it.
        production = (OBSERVABILITY / "collector.yaml").read_text()
        production, blocks = re.subn(r"^  k8s_attributes:\n(    .*\n)+", "", production, flags=re.M)
        same("uses of k8s_attributes", (blocks, production.count("k8s_attributes, ")), (1, 1))
        production = production.replace("k8s_attributes, ", "")
        self.start_collector("production", production)
        self.processes.kill("production")
        self.start_compose_collector()
        self.start_tools()
        self.start_fanfare()
        self.start_prometheus()

    def start_collector(self, name: str, config: str) -> None:
        self.processes.start(name, [COLLECTOR, "--config", self.adapted(f"{name}.yaml", config)], "Everything is ready")

    def start_compose_collector(self) -> None:
        self.start_collector("collector", (DEPLOY / "compose/collector.yaml").read_text())
        wait_for("health of the collector", lambda: get(f"http://127.0.0.1:{self.health}"))

    def adapted(self, name: str, text: str) -> Path:
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        (self.folder / name).write_text(text)
        return self.folder / name

    def start_tools(self) -> None:
        for port in self.tools:
            self.rig.start_tool("tonic", f"tools {port}", port)

    def start_fanfare(self) -> None:
        config = self.adapted("fanfare.toml", (DEPLOY / "compose/fanfare.toml").read_text() + LIMITS)
        environment = PROJECT["services"]["fanfare"]["environment"]
        environment = {k: v.replace("collector:4317", f"127.0.0.1:{self.otlp}") for k, v in environment.items()}
        said = f"listening on 127.0.0.1:{self.listen}"
        self.processes.start("fanfare", [FANFARE, "serve", "--config", config], said, environment)
        self.fanfare = Fanfare(self.rig, "fanfare", self.listen, self.admin)

    def start_prometheus(self) -> None:
        # Nothing here lasts for minutes.
        rules = re.sub(r"^( +for): \d+m$", r"\1: 0s", (OBSERVABILITY / "rules.yml").read_text(), flags=re.M)
        (self.folder / "rules.yml").write_text(rules)
        config = self.adapted("prometheus.yml", (DEPLOY / "compose/prometheus.yml").read_text())
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'tsdb'}"]
        self.processes.start("prometheus", [*command, f"--web.listen-address=127.0.0.1:{self.web}"])
        wait_for("Prometheus", lambda: get(f"{self.prometheus.base}/-/ready"))
        wait_for("targets", lambda: len(self.prometheus.query("up == 1")) == 2)

    # The calls.

    def call(self, calls: list[dict], *metadata: tuple[str, str], **fields) -> list[str]:
        """The reasons that its calls failed with, or the request's status."""
        try:
            answer = self.fanfare.execute(calls, metadata=metadata, **fields)
        except grpc.RpcError as error:
            return [error.code().name]
        return [why for why in map(reason, answer) if why]

    def expect(self, wanted: list[str], calls: list[dict], *metadata: tuple[str, str], **fields) -> None:
        same(f"{str(calls):.200}", self.call(calls, *metadata, **fields), wanted)

    def scraped(self, expression: str) -> None:
        """Until Prometheus has it."""
        wait_for(expression, lambda: self.prometheus.query(expression))

    def fires(self, *alerts: str) -> None:
        for alert in alerts:
            self.scraped(f'ALERTS{{alertname="Fanfare{alert}",alertstate="firing"}}')

    def drive(self) -> None:
        self.expect(["TOOL_FAILED", "UNKNOWN_TOOL"], BATCH, CONTEXT)
        # A rate needs a second sample that is higher than the first.
        for key in ("first", "second"):
            self.ordinary(key)
            self.overload()
            rejected = self.fanfare.metric("fanfare_request_rejections_total")
            self.scraped(f"sum(fanfare_request_rejections_total) == {rejected}")
        self.fires("ErrorBudgetBurnFast", "ErrorBudgetBurnSlow", "RequestsShed")
        self.fires("ToolDeadlines", "ToolErrorRatio", "ToolOverloaded")
        self.break_tools()
        self.lose_collector()
        wait_for("trace", lambda: spans_of_trace(self.traces) == TREE)

    def ordinary(self, key: str) -> None:
        """What happens on any day."""
        self.expect([], calls("flaky", key=key, failures=1))
        self.expect(["DEADLINE_EXCEEDED"], calls("hang", timeout="0.2s"))
        self.expect(["INVALID_ARGUMENT"], [])
        # Context over W3C's limits stays behind.
        self.expect([], calls("echo"), ("baggage", "key=" + "x" * 8200))
        with grpc.insecure_channel(f"127.0.0.1:{self.listen}") as channel:
            other = channel.unary_unary("/another.Service/Method").future(b"")
            same("another service", other.exception().code(), grpc.StatusCode.UNIMPLEMENTED)
        # The first failure cancels the rest.
        failing = calls("sleep", seconds=5) + calls("fail", code=5, message="no")
        self.expect(["CANCELLED", "TOOL_FAILED"], failing, failure_policy="FAILURE_POLICY_CANCEL_REST")
        # 8 at a time, 16 wait, the others are turned away.
        wait_for("idle tools", lambda: self.fanfare.metric("fanfare_tool_active_calls") == 0)
        self.expect(["OVERLOADED"] * 8, calls("sleep", 32, seconds=0.7))

    def overload(self) -> None:
        """Fills the process, and one request more."""
        count = IN_FLIGHT - 4
        holding = self.fanfare.stub.ExecuteTools.future(request(calls("hang", count)))
        wait_for("calls that hang", lambda: self.fanfare.metric("fanfare_tool_active_calls") == count)
        self.expect(["RESOURCE_EXHAUSTED"], calls("echo", 5))
        self.fires("NearInFlightLimit")
        holding.cancel()

    def break_tools(self) -> None:
        """One replica of the tools dies, then the other; then both are back."""
        breaker = lambda: self.fanfare.metric("fanfare_tool_service_breaker_state")
        ejected = lambda: self.fanfare.metric("fanfare_tool_service_ejected_addresses")
        one, eight = calls("echo"), calls("echo", 8)
        self.processes.kill(f"tools {self.tools[1]}")
        wait_for("ejected address", lambda: self.call(eight) and 0 or ejected() == 1)
        self.fires("EjectedAddresses")
        self.processes.kill(f"tools {self.tools[0]}")
        wait_for("open breaker", lambda: self.call(one) and breaker() > 0)
        wait_for("call that is not tried", lambda: self.call(one) == ["CIRCUIT_OPEN"])
        self.fires("BreakerOpen")
        self.start_tools()
        wait_for("closed breaker", lambda: not self.call(one) and breaker() == 0)

    def lose_collector(self) -> None:
        self.processes.stop("collector")
        dropped = lambda: self.fanfare.metric("fanfare_telemetry_dropped_spans_total")
        wait_for("dropped span", lambda: self.call(calls("echo")) or dropped() > 0)
        self.fires("DroppedSpans")
        self.start_compose_collector()


def spans_of_trace(file: Path) -> set:
    """Name, kind, the parent's name (or its id), of what the sink wrote."""
    spans = [
        span
        for line in file.read_text().splitlines() if line.endswith("}")
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"] if span["traceId"] == TRACE
    ]  # fmt: skip
    names = {span["spanId"]: span["name"] for span in spans}
    return {(s["name"], KINDS[s["kind"]], names.get(s["parentSpanId"], s["parentSpanId"])) for s in spans}


def documented_metrics() -> dict[str, list[str]]:
    """Of telemetry.md, as Prometheus spells them: what may follow the name, which
    is one of several for a histogram, and the labels."""
    page = (OBSERVABILITY / "telemetry.md").read_text()
    table = re.search(r"<!-- telemetry:metrics -->(.*?)<!-- end -->", page, re.S)[1]
    metrics = {}
    for name, kind, unit, labels in re.findall(r"^\| `([\w.]+)` \| (\w+), (\S+) \| (.*?) \|", table, re.M):
        name = name.replace(".", "_") + {"s": "_seconds", "By": "_bytes"}.get(unit, "")
        name += {"counter": "_total", "histogram": "_bucket"}.get(kind, "")
        metrics[name] = [label.replace(".", "_") for label in re.findall(r"`([\w.]+)`", labels)]
    return metrics


def page_expressions(path: Path) -> list[str]:
    """The PromQL of a page, one query a line."""
    blocks = "".join(re.findall(r"^```promql$(.*?)^```$", path.read_text(), re.M | re.S))
    return [line for line in blocks.splitlines() if line.strip() and not line.startswith("#")]


class Expression:
    """PromQL; `selectors`: pairs of a metric and its matchers (label, operator, value);
    `grouping`: the labels that results are grouped or joined by."""

    def __init__(self, text: str):
        self.text, self.selectors, self.grouping = text, [], set()
        self.read(promql_parser.parse(text))

    def read(self, node) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            matchers = [(m.name, m.op, m.value) for m in node.matchers.matchers]
            self.selectors.append((node.name, matchers))
        modifier = getattr(node, "modifier", None)
        for of, labels in (modifier, "labels"), (modifier, "group_labels"), (getattr(modifier, "matching", None), "labels"):
            self.grouping |= set(getattr(of, labels, None) or ())
        for part in ("expr", "lhs", "rhs", "vector_selector", "args"):
            inner = getattr(node, part, None)
            for one in inner if isinstance(inner, list) else [inner] if inner else []:
                self.read(one)


def dashboard_expressions() -> list[tuple[str, str]]:
    """Where they are, and what they are with the variables filled in."""
    board = json.loads((OBSERVABILITY / "fanfare-dashboard.json").read_text())
    found = [
        (f"panel {panel['title']} {target['refId']}", target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]
    found += [(f"annotation {a['name']}", a["expr"]) for a in board["annotations"]["list"] if "expr" in a]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            found.append((f"variable {variable['name']}", f"count by ({label}) ({series})"))
    fill = lambda text: re.sub(r"\$(namespace|job|instance|tool)\b", ".*", re.sub(r"\$__(rate_interval|range)", "5m", text))
    return [(where, fill(text)) for where, text in found]


def rule_expressions(prometheus: Prometheus) -> list[tuple[str, str]]:
    """Of the rules that Prometheus has loaded, which must all be well."""
    loaded = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    for rule in loaded:
        if rule["health"] != "ok" or rule["type"] == "recording" and not prometheus.query(rule["name"]):
            fail(f"rule {rule['name']} is {rule['health']}, or records nothing: {rule.get('lastError')}")
    return [(f"rule {rule['name']}", rule["query"]) for rule in loaded]


def check_series(prometheus: Prometheus, where: str, text: str) -> None:
    """Each selector has found a series, by its metric, its labels and their values."""
    expression = Expression(text)
    for metric, matchers in expression.selectors:
        # Of a set of values each may be missing on a good day; the label may not.
        wanted = [
            f'{label}="{value}"' if op == promql_parser.MatchOp.Equal else f'{label}=~".+"' for label, op, value in matchers
        ]
        if not prometheus.has(metric, *wanted):
            fail(f"{where}: there is no {metric}{{{','.join(wanted)}}}, in:\n{text}")
    for label in expression.grouping:
        if not any(prometheus.has(metric, f'{label}=~".+"') for metric, _ in expression.selectors):
            fail(f"{where}: no series has the label {label}, in:\n{text}")


def check(prometheus: Prometheus) -> None:
    metrics = documented_metrics()
    for metric, labels in metrics.items():
        for label in labels or ["job"]:
            if not prometheus.has(metric, f'{label}=~".+"'):
                fail(f"telemetry.md: there is no {metric} with {label}")
    rules, panels = rule_expressions(prometheus), dashboard_expressions()
    pages = [ROOT / "README.md", *sorted(DEPLOY.rglob("*.md"))]
    queries = [(page.name, query) for page in pages for query in page_expressions(page)]
    for where, text in rules + panels + queries:
        check_series(prometheus, where, text)
        result = prometheus.query(text)
        # A value that is no number is not equal to itself.
        if where.startswith("panel") and not any(float(r["value"][1]) == float(r["value"][1]) for r in result):
            fail(f"{where} has no data: {text}")
    print(f"{len(metrics)} metrics; {len(rules)} rules, {len(panels)} panels' and {len(queries)} pages' queries evaluated")
    for gauge in MOVED:
        if not prometheus.query(f"max(max_over_time({gauge}[10m])) > 0"):
            fail(f"{gauge} never was above 0")
    fired = prometheus.query('count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[10m]))')
    print(f"{len(fired)} alerts fired: {', '.join(a['metric']['alertname'] for a in fired)}")


check_project()
with processes() as started:
    stack = Stack(started)
    stack.start()
    stack.drive()
    check(stack.prometheus)
    for name in ("fanfare", "prometheus", "collector", "sink"):
        started.stop(name)
