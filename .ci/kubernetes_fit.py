"""Whether the objects of one rendering fit together, and fit the program they run.

Each check yields sentences about what does not fit. `settings` are what `fanfare check`
makes of each ConfigMap's file, by the ConfigMap's name.
"""

import json
import re
import tomllib
from pathlib import Path

from kubernetes_objects import config_of, named, of_kind, ports, selected, template, title

ROOT = Path(__file__).parent.parent
UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600}
# What users bring themselves; README.md says how.
BROUGHT = {("Secret", "fanfare-tls"), ("ConfigMap", "fanfare-otel-ca")}


def problems(objects: list[dict], settings: dict[str, dict]) -> list[str]:
    checks = [services, autoscalers, budgets, policies, pods, probes, volumes, monitors]
    found = [p for check in checks for p in check(objects)]
    for deployment in of_kind(objects, "Deployment"):
        own = settings_of(objects, deployment, settings)
        found += [f"{title(deployment)}: {p}" for p in against_settings(objects, deployment, own)]
    return found


def settings_of(objects, deployment, settings) -> dict | None:
    text = config_of(objects, deployment)
    return settings[text] if text else None


def services(objects):
    for service in of_kind(objects, "Service"):
        backends = selected(objects, service["spec"]["selector"])
        if len(backends) != 1:
            yield f"{title(service)}: selects {len(backends)} deployments"
        for port in service["spec"]["ports"]:
            for backend in backends:
                if port["targetPort"] not in ports(backend):
                    yield f"{title(service)}: {title(backend)} has no port {port['targetPort']}"
                elif port["port"] != ports(backend)[port["targetPort"]]:
                    yield f"{title(service)}: port {port['port']} is not {port['targetPort']}'s"


def autoscalers(objects):
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        deployment = named(objects, target["kind"], target["name"])
        if not deployment:
            yield f"{title(scaler)}: there is no {target['kind']} {target['name']}"
        elif "replicas" in deployment["spec"]:
            yield f"{title(deployment)}: replicas are {title(scaler)}'s"
        elif "cpu" not in template(deployment)[1]["containers"][0]["resources"]["requests"]:
            yield f"{title(scaler)}: {title(deployment)} requests no CPU"


def budgets(objects):
    for budget in of_kind(objects, "PodDisruptionBudget"):
        if len(selected(objects, budget["spec"]["selector"]["matchLabels"])) != 1:
            yield f"{title(budget)}: does not select one deployment"


def policies(objects):
    for policy in of_kind(objects, "NetworkPolicy"):
        backends = selected(objects, policy["spec"]["podSelector"]["matchLabels"])
        if len(backends) != 1:
            yield f"{title(policy)}: does not select one deployment"
            continue
        opened = {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]}
        for port in opened ^ ports(backends[0]).keys():
            yield f"{title(policy)}: port {port} of {title(backends[0])} and of its rules differ"
        called = [peer for rule in policy["spec"]["egress"] for peer in rule["to"]]
        for tools in of_kind(objects, "Deployment"):
            labels = template(tools)[0]
            if labels["app.kubernetes.io/component"] == "demo-tools" and not any(
                peer.get("podSelector", {"matchLabels": {"": ""}})["matchLabels"].items()
                <= labels.items()
                for peer in called
            ):
                yield f"{title(policy)}: does not let out to {title(tools)}"


def pods(objects):
    for deployment in of_kind(objects, "Deployment"):
        labels, spec = template(deployment)
        selectors = [deployment["spec"]["selector"]["matchLabels"]]
        selectors += [
            c["labelSelector"]["matchLabels"] for c in spec.get("topologySpreadConstraints", [])
        ]
        for selector in selectors:
            if not selector.items() <= labels.items():
                yield f"{title(deployment)}: {selector} does not select its own pods"
            others = [d for d in selected(objects, selector) if d is not deployment]
            for other in others:
                yield f"{title(deployment)}: {selector} also selects those of {title(other)}"
        account = named(objects, "ServiceAccount", spec["serviceAccountName"])
        if not account or account["automountServiceAccountToken"] is not False:
            yield f"{title(deployment)}: its ServiceAccount is not there, or mounts a token"
        for container in spec["containers"]:
            known = set()
            for variable in container.get("env", []):
                for name in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                    if name not in known:
                        yield f"{title(deployment)}: $({name}) is not set before {variable['name']}"
                known.add(variable["name"])


def probes(objects):
    for deployment in of_kind(objects, "Deployment"):
        have = ports(deployment)
        for container in template(deployment)[1]["containers"]:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {})
                if "grpc" in probe and probe["grpc"]["port"] != have.get("grpc"):
                    yield f"{title(deployment)}: {kind}: port {probe['grpc']['port']} is not grpc's"
                if "httpGet" in probe and probe["httpGet"]["port"] not in have:
                    yield f"{title(deployment)}: {kind}: no port {probe['httpGet']['port']}"
            if "grpc" in container.get("livenessProbe", {}):
                yield f"{title(deployment)}: livenessProbe: gRPC health fails in a drain"


def volumes(objects):
    for deployment in of_kind(objects, "Deployment"):
        _, spec = template(deployment)
        given = {}
        for volume in spec.get("volumes", []):
            kind, name = (
                ("Secret", volume["secret"]["secretName"])
                if "secret" in volume
                else ("ConfigMap", volume["configMap"]["name"])
            )
            given[volume["name"]] = named(objects, kind, name)
            if not given[volume["name"]] and (kind, name) not in BROUGHT:
                yield f"{title(deployment)}: volume {volume['name']}: there is no {kind} {name}"
            if kind == "Secret" and "fsGroup" not in spec["securityContext"]:
                yield f"{title(deployment)}: volume {volume['name']}: no fsGroup, unreadable"
        for container in spec["containers"]:
            mounts = container.get("volumeMounts", [])
            for mount in mounts:
                if "subPath" in mount:
                    yield f"{title(deployment)}: no change gets to {mount['mountPath']} (subPath)"
            paths = [m["mountPath"] for m in mounts]
            files = [a for a in container["args"] if a.startswith("/")]
            files += [
                v["value"] for v in container.get("env", []) if v["name"].endswith("_CERTIFICATE")
            ]
            files += re.findall(r'_file = "(.*)"', config_of(objects, deployment) or "")
            for file in files:
                if not any(file == p or file.startswith(p + "/") for p in paths):
                    yield f"{title(deployment)}: nothing is mounted at {file}"


def monitors(objects):
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [
            service
            for service in of_kind(objects, "Service")
            if wanted <= service["metadata"]["labels"].items()
            and any(
                p["name"] == e["port"]
                for p in service["spec"]["ports"]
                for e in monitor["spec"]["endpoints"]
            )
        ]
        if len(found) != 1:
            yield f"{title(monitor)}: scrapes {len(found)} services, and so pods as often"


def against_settings(objects, deployment, settings):
    """`settings`: of `fanfare serve`; `None`: it runs the demo tools."""
    _, spec = template(deployment)
    arguments = spec["containers"][0]["args"]
    if settings is None:
        if arguments[0] == "demo-tools":
            yield from grace(spec, 0, 25)
            if arguments[2] != f"0.0.0.0:{ports(deployment)['grpc']}":
                yield f"listens on {arguments[2]}"
        else:
            yield "has no fanfare.toml"
        return
    server = settings["server"]
    yield from grace(spec, seconds(server["drain_delay"]), seconds(server["drain_timeout"]))
    for key, port in (("listen", "grpc"), ("admin_listen", "metrics")):
        if server[key] not in (
            f"0.0.0.0:{ports(deployment)[port]}",
            f"[::]:{ports(deployment)[port]}",
        ):
            yield f"server.{key} is {server[key]}, port {port} {ports(deployment)[port]}"
    for service in settings.get("services", {}).values():
        for endpoint in service.get("endpoints", [service.get("endpoint")]):
            host, _, port = endpoint.split("://")[1].rstrip("/").partition(":")
            target = named(objects, "Service", host)
            if "." not in host and (
                not target or int(port) not in [p["port"] for p in target["spec"]["ports"]]
            ):
                yield f"there is no Service for {endpoint}"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        for metric in scaler["spec"]["metrics"]:
            limit = settings["limits"]["max_in_flight_calls"]
            if "pods" in metric and not 0 < int(metric["pods"]["target"]["averageValue"]) < limit:
                yield f"{title(scaler)}: its target is not below max_in_flight_calls ({limit})"
    endpoint = next(
        (
            v["value"]
            for v in spec["containers"][0]["env"]
            if v["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT"
        ),
        None,
    )
    for policy in of_kind(objects, "NetworkPolicy") if endpoint else []:
        allowed = [p["port"] for r in policy["spec"]["egress"] for p in r.get("ports", [])]
        if int(endpoint.rsplit(":", 1)[1]) not in allowed:
            yield f"{title(policy)}: does not let out to {endpoint}"


def grace(spec, drain_delay, drain_timeout):
    """Both, the last replies and the last spans must be over before the kill."""
    needed = drain_delay + drain_timeout + constant("src/server.rs", "LAST_REPLIES")
    needed += constant("src/cli.rs", "FLUSH_TIMEOUT")
    given = spec["terminationGracePeriodSeconds"]
    if given <= needed:
        yield f"terminationGracePeriodSeconds is {given}, needed {needed}"


def constant(file: str, name: str) -> float:
    """Seconds of a `const NAME: Duration` in the source."""
    text = (ROOT / file).read_text()
    unit, value = re.search(
        rf"const {name}: Duration = Duration::from_(\w+)\((\d+)\);", text
    ).groups()
    return int(value) * {"secs": 1, "millis": 0.001}[unit]


def seconds(text: str) -> float:
    """Of a duration as `fanfare check` writes it, such as `1m 30s`."""
    parts = re.findall(r"(\d+)\s*([a-z]+)", text)
    return sum(int(n) * UNITS[unit] for n, unit in parts)


def demo_tools(objects: list[dict]) -> list[str]:
    """Whether an overlay that has the demo tools names them as they are."""
    source = (ROOT / "src/demo.rs").read_text()
    table = source[
        source.index("pub const TOOLS") : source.index("];", source.index("pub const TOOLS"))
    ]
    pattern = r'\(\s*("\w+"),\s*("(?:[^"\\]|\\.)*"),\s*(true|false),?\s*\)'
    known = {
        json.loads(name): (json.loads(text), idempotent == "true")
        for name, text, idempotent in re.findall(pattern, table)
    }
    config = config_of(objects, named(objects, "Deployment", "fanfare"))
    tools = tomllib.loads(config)["tools"]
    named_here = {n: (t["description"], t.get("idempotent", False)) for n, t in tools.items()}
    return [] if named_here == known else [f"the demo's tools are {known}, not {named_here}"]
