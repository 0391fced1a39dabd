"""What must hold once stack.py's calls were made: the trace, every series that
somebody asks for, every expression, the gauges."""

import json
import re
from pathlib import Path

from processes import fail
from stack_promql import Expression, dashboard_expressions, page_expressions
from telemetry import TRACES, TREE

ROOT = Path(__file__).parent.parent
OBSERVABILITY = ROOT / "deploy/observability"
KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}
# Gauges of which one sample at least must have been above zero.
MOVED = [
    "fanfare_active_requests", "fanfare_in_flight_calls", "fanfare_tool_active_calls",
    "fanfare_tool_queue_length", "fanfare_tool_service_breaker_state",
    "fanfare_tool_service_connections", "fanfare_tool_service_ejected_addresses",
]  # fmt: skip


def spans_of_trace(file: Path) -> set:
    """Name, kind, the parent's name (or its id), of what the sink wrote."""
    spans = [
        span
        for line in file.read_text().splitlines() if line.endswith("}")
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"] if span["traceId"] == TRACES[0]
    ]  # fmt: skip
    names = {span["spanId"]: span["name"] for span in spans}
    return {
        (s["name"], KINDS[s["kind"]], names.get(s["parentSpanId"], s["parentSpanId"]))
        for s in spans
        if not s["name"].startswith("grpc.")
    }


def documented_metrics() -> dict[str, list[str]]:
    """Of telemetry.md, as Prometheus spells them: what may follow the name, which
    is one of several for a histogram, and the labels."""
    table = re.search(
        r"<!-- telemetry:metrics -->(.*?)<!-- end -->", (OBSERVABILITY / "telemetry.md").read_text(), re.S
    )[1]
    metrics = {}
    for name, kind, unit, labels in re.findall(
        r"^\| `([\w.]+)` \| (\w+), (\S+) \| (.*?) \|", table, re.M
    ):
        name = name.replace(".", "_") + {"s": "_seconds", "By": "_bytes"}.get(unit, "")
        name += {"counter": "_total", "histogram": "_bucket"}.get(kind, "")
        metrics[name] = [label.replace(".", "_") for label in re.findall(r"`([\w.]+)`", labels)]
    return metrics


def rule_expressions(prometheus) -> list[tuple[str, str]]:
    """Of the rules that Prometheus has loaded, which must all be well."""
    found = []
    for group in prometheus.api("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                fail(f"rule {rule['name']} is {rule['health']}: {rule.get('lastError')}")
            if rule["type"] == "recording" and not prometheus.query(rule["name"]):
                fail(f"rule {rule['name']} records nothing")
            found.append((f"rule {rule['name']}", rule["query"]))
    return found


def check_series(prometheus, where: str, text: str) -> None:
    """Each selector has found a series, by its metric, its labels and their values."""
    expression = Expression(text)
    for metric, matchers in expression.selectors:
        # Of a set of values each may be missing on a good day; the label may not.
        wanted = [
            f'{label}="{value}"' if operator == "=" else f'{label}=~".+"'
            for label, operator, value in matchers
        ]
        if not prometheus.has(metric, *wanted):
            fail(f"{where}: there is no {metric}{{{','.join(wanted)}}}, in:\n{text}")
    for label in expression.grouping:
        if not any(prometheus.has(metric, f'{label}=~".+"') for metric, _ in expression.selectors):
            fail(f"{where}: no series has the label {label}, in:\n{text}")


def check(stack) -> None:
    prometheus = stack.prometheus
    spans = spans_of_trace(stack.traces)
    if spans != TREE:
        fail(f"the trace has the spans\n{spans}\nnot\n{TREE}")
    print(f"a trace of {len(spans)} spans in their places came through the collector")

    metrics = documented_metrics()
    for metric, labels in metrics.items():
        for label in labels or ["job"]:
            if not prometheus.has(metric, f'{label}=~".+"'):
                fail(f"telemetry.md: there is no {metric} with {label}")
    print(f"{len(metrics)} metrics with their labels, as telemetry.md lists them")

    rules = rule_expressions(prometheus)
    panels = dashboard_expressions(OBSERVABILITY / "fanfare-dashboard.json")
    pages = [ROOT / "README.md", *sorted((ROOT / "deploy").rglob("*.md"))]
    queries = [query for page in pages for query in page_expressions(page)]
    for where, text in rules + panels + queries:
        check_series(prometheus, where, text)
        result = prometheus.query(text)
        if where.startswith("panel") and not any(value(r) == value(r) for r in result):
            fail(f"{where} has no data: {text}")
    print(f"{len(rules)} rules, {len(panels)} panels' and {len(queries)} pages' queries evaluated")

    for gauge in MOVED:
        if not prometheus.query(f"max(max_over_time({gauge}[10m])) > 0"):
            fail(f"{gauge} never was above 0")
    fired = prometheus.query(
        'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[10m]))'
    )
    print(f"{len(fired)} alerts fired: {', '.join(a['metric']['alertname'] for a in fired)}")


def value(result: dict) -> float:
    return float(result["value"][1])
