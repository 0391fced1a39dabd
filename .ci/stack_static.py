#!/usr/bin/env python3
"""What of deploy/observability and deploy/compose can be checked by reading it.

The operator's rules are Prometheus' rules; each alert has its tests and its
section in the runbook, and no section is an orphan; the dashboard can be imported
anywhere; compose.yaml opens nothing to the network, and its collector is the one
that the checks build. `--update` writes prometheus-rule.yaml.
"""

import argparse
import json
import re
from itertools import combinations
from pathlib import Path

from processes import fail

ROOT = Path(__file__).parent.parent
OBSERVABILITY = ROOT / "deploy/observability"
OPERATOR_RULES = OBSERVABILITY / "prometheus-rule.yaml"
OPERATOR_HEAD = """\
# Written by .ci/stack_static.py --update: the groups of rules.yml, for the operator.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: fanfare
  labels:
    app.kubernetes.io/name: fanfare
    app.kubernetes.io/component: orchestrator
    app.kubernetes.io/part-of: fanfare
spec:
"""
RUNBOOK = "deploy/observability/runbook.md#"
# What a section of the runbook must tell.
RUNBOOK_PARTS = ("Means", "Look at", "Do", "Governed by")


def read(name: str) -> str:
    return (OBSERVABILITY / name).read_text()


def operator_rules() -> str:
    groups = read("rules.yml").split("\ngroups:\n")[1]
    return OPERATOR_HEAD + "  groups:\n" + re.sub(r"^(?=.)", "  ", groups, flags=re.M)


def check_rules() -> int:
    if OPERATOR_RULES.read_text() != operator_rules():
        fail(f"{OPERATOR_RULES.name} is not rules.yml: run .ci/stack_static.py --update")
    rules = re.split(r"^      - alert: ", read("rules.yml"), flags=re.M)[1:]
    alerts = [rule.split()[0] for rule in rules]
    cases = re.findall(r"alertname: (\w+)(\}|\n +exp_alerts:)", read("rules_test.yml"))
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", read("runbook.md"), re.M | re.S))
    for alert, rule in zip(alerts, rules):
        for field in ("for", "severity", "summary", "description"):
            if not re.search(rf"^ +{field}: \S", rule, re.M):
                fail(f"rules.yml: {alert} has no {field}")
        if f"runbook: {RUNBOOK}{alert.lower()}\n" not in rule:
            fail(f"rules.yml: {alert} does not name its section in the runbook")
        for what, end in (("fires", False), ("is silent", True)):
            if not any(name == alert and (tail == "}") == end for name, tail in cases):
                fail(f"rules_test.yml: no case in which {alert} {what}")
        for part in RUNBOOK_PARTS:
            if f"**{part}**" not in sections.get(alert, ""):
                fail(f"runbook.md: {alert} does not have its **{part}**")
    if orphans := set(sections) - set(alerts):
        fail(f"runbook.md has sections of no alert: {orphans}")
    return len(alerts)


def sources(json) -> list:
    """All data sources in it."""
    inner = json.values() if isinstance(json, dict) else json if isinstance(json, list) else ()
    own = [json["datasource"]] if isinstance(json, dict) and "datasource" in json else []
    return own + [source for value in inner for source in sources(value)]


def check_dashboard() -> int:
    board = json.loads(read("fanfare-dashboard.json"))
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    if len(set(ids)) != len(ids):
        fail(f"the dashboard's panels do not have ids of their own: {ids}")
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board)))
    if unknown := used - variables - {"__all", "__rate_interval", "__range"}:
        fail(f"the dashboard has no variables {unknown}")
    source = {"type": "prometheus", "uid": "${datasource}"}
    for other in (o for o in sources(board) if o != source):
        if other["type"] != "grafana":
            fail(f"the dashboard asks a data source of its own: {other}")
    for panel in panels:
        place, title = panel["gridPos"], panel["title"]
        if place["x"] + place["w"] > 24:
            fail(f"panel {title} reaches beyond the grid: {place}")
        if panel["type"] == "row":
            continue
        if not panel["targets"]:
            fail(f"panel {title} asks for nothing")
        if not all("datasource" in target for target in [panel, *panel["targets"]]):
            fail(f"panel {title} asks a data source that it does not name")
        for target in panel["targets"]:
            if not target["expr"]:
                fail(f"panel {title}: {target['refId']} has no expression")
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            if not {"namespace", "job"} <= used:
                fail(f"panel {title}: {target['expr']} is not narrowed to namespace and job")
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        if all(a[at] < b[at] + b[size] and b[at] < a[at] + a[size] for at, size in ("xw", "yh")):
            fail(f"panels {one['title']} and {other['title']} overlap: {a}, {b}")
    if not board["uid"] or board["id"] is not None:
        fail("the dashboard needs a uid of its own, and the id null")
    return sum(panel["type"] != "row" for panel in panels)


def without_kubernetes(config: str) -> str:
    config, blocks = re.subn(r"^  k8s_attributes:\n(    .*\n)+", "", config, flags=re.M)
    config, uses = re.subn(r"\bk8s_attributes, ", "", config)
    if (blocks, uses) != (1, 1):
        fail(f"collector.yaml has {blocks} k8s_attributes, used {uses} times")
    return config


def check_compose(project: dict) -> None:
    for name, service in project["services"].items():
        image = service["image"]
        if not re.search(r":v?\d+\.\d+\.\d+$", image):
            fail(f"compose.yaml: {name}: {image} is not pinned to a version")
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                fail(f"compose.yaml: {name}: port {port['target']} is open to the network")
        if not (service.get("read_only") and service.get("cap_drop") == ["ALL"]):
            fail(f"compose.yaml: {name} is not read-only and without capabilities")
        if service.get("user", "0").split(":")[0] in ("0", "root"):
            fail(f"compose.yaml: {name} runs as root")
        for volume in service.get("volumes", []):
            source = Path(volume["source"])
            if not (source.is_file() and volume.get("read_only")):
                fail(f"compose.yaml: {name}: {source} is no file, or writable")
    pinned = project["services"]["collector"]["image"].split(":")[1]
    go_mod = (ROOT / ".ci/collector/go.mod").read_text()
    if not re.search(rf"/collector/otelcol v{re.escape(pinned)}\b", go_mod):
        fail(f"compose.yaml has collector {pinned}, the checks have another")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"write {OPERATOR_RULES.name}")
    parser.add_argument(
        "--without-kubernetes",
        action="store_true",
        help="only print collector.yaml without the processor that needs a cluster",
    )
    parser.add_argument("--project", help="compose.yaml as JSON, resolved")
    options = parser.parse_args()
    if options.update:
        OPERATOR_RULES.write_text(operator_rules())
        return
    if options.without_kubernetes:
        print(without_kubernetes(read("collector.yaml")))
        return
    alerts, panels = check_rules(), check_dashboard()
    print(f"{alerts} alerts with tests and a section of the runbook; {panels} panels in order")
    if options.project:
        check_compose(json.loads(Path(options.project).read_text()))


if __name__ == "__main__":
    main()
