#!/usr/bin/env python3
"""What of deploy/observability can be checked by reading it.

The operator's rules are Prometheus' rules; each alert has its tests and its section in the
runbook, and no section is an orphan; the dashboard can be imported anywhere.
"""

import json
import re
import sys
from itertools import combinations
from pathlib import Path

import yaml

OBSERVABILITY = Path("deploy/observability")
RUNBOOK = "deploy/observability/runbook.md#"
# What a section of the runbook must tell.
RUNBOOK_PARTS = ("Means", "Look at", "Do", "Governed by")


def read(name: str) -> str:
    return (OBSERVABILITY / name).read_text()


def rules():
    """Yields what is wrong with the rules."""
    groups = yaml.safe_load(read("rules.yml"))["groups"]
    if yaml.safe_load(read("prometheus-rule.yaml"))["spec"]["groups"] != groups:
        yield "prometheus-rule.yaml does not have the groups of rules.yml"
    cases = [case for test in yaml.safe_load(read("rules_test.yml"))["tests"] for case in test.get("alert_rule_test", [])]
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", read("runbook.md"), re.M | re.S))
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    for alert, rule in alerts.items():
        has = {"for": rule.get("for"), **rule["labels"], **rule["annotations"]}
        missing = [field for field in ("for", "severity", "summary", "description") if not has.get(field)]
        if missing or has.get("runbook", "").partition(RUNBOOK)[1:] != (RUNBOOK, alert.lower()):
            yield f"rules.yml: {alert}: {missing} are missing, or its section in the runbook is not named"
        if {bool(case.get("exp_alerts")) for case in cases if case["alertname"] == alert} != {True, False}:
            yield f"rules_test.yml: no case in which {alert} fires, or none in which it is silent"
        for part in RUNBOOK_PARTS:
            if f"**{part}**" not in sections.get(alert, ""):
                yield f"runbook.md: {alert} does not have its **{part}**"
    if orphans := sections.keys() - alerts:
        yield f"runbook.md has sections of no alert: {orphans}"


def dashboard():
    """Yields what is wrong with the dashboard."""
    board = json.loads(read("fanfare-dashboard.json"))
    panels = board["panels"]
    if len({panel["id"] for panel in panels}) != len(panels) or not board["uid"] or board["id"] is not None:
        yield "the panels have no ids of their own, or the board no uid, or an id"
    variables = {variable["name"] for variable in board["templating"]["list"]}
    if unknown := set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - variables - {"__all", "__rate_interval", "__range"}:
        yield f"no variables {unknown}"
    source = {"type": "prometheus", "uid": "${datasource}"}
    for other in sources(board):
        if other != source and other["type"] != "grafana":
            yield f"a data source of its own: {other}"
    for panel in panels:
        title, targets = panel["title"], panel.get("targets", [])
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24:
            yield f"{title} reaches beyond the grid"
        if panel["type"] != "row" and not (targets and all("datasource" in one for one in [panel, *targets])):
            yield f"{title} asks for nothing, or does not name its data source"
        for target in targets:
            if not {"namespace", "job"} <= set(re.findall(r"\$(\w+)", target["expr"])):
                yield f"{title}: {target['expr']!r} is not narrowed to namespace and job"
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        if all(a[at] < b[at] + b[size] and b[at] < a[at] + a[size] for at, size in ("xw", "yh")):
            yield f"{one['title']} and {other['title']} overlap"


def sources(json) -> list:
    """All data sources in it."""
    inner = json.values() if isinstance(json, dict) else json if isinstance(json, list) else ()
    own = [json["datasource"]] if isinstance(json, dict) and "datasource" in json else []
    return own + [source for value in inner for source in sources(value)]


if problems := [*rules(), *(f"the dashboard: {problem}" for problem in dashboard())]:
    sys.exit("\n".join(problems))
