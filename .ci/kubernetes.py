#!/usr/bin/env python3
"""Checks what kustomize and Helm have rendered: `kubernetes.py FOLDER`, a file for each rendering.

Whether the objects fit together and fit the program, and chart and base are the same; Fanfare
then runs as its container would. That they are objects, and what is best practice, the API server
and kube-score say.
"""

import copy
import json
import os
import re
import sys
import tomllib
from pathlib import Path

import yaml

from rig import FANFARE, ROOT, fail, free_ports, get, processes, run, same, wait_for

UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600}
# What users bring themselves; README.md says how.
BROUGHT = {("Secret", "fanfare-tls"), ("ConfigMap", "fanfare-otel-ca")}
# What Helm adds to each object, and what it does instead of a hash in the ConfigMap's name.
HELMS = {
    "app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version",
    "helm.sh/chart", "checksum/config",
}  # fmt: skip
HASH = re.compile(r"-[0-9a-z]{10}$")


class Objects(list):
    """Those of a rendering."""

    def __init__(self, file: Path):
        super().__init__(o for o in yaml.safe_load_all(file.read_text()) if o)

    def of_kind(self, kind: str) -> list[dict]:
        return [o for o in self if o["kind"] == kind]

    def named(self, kind: str, name: str) -> dict | None:
        return next((o for o in self.of_kind(kind) if o["metadata"]["name"] == name), None)

    def selected(self, selector: dict) -> list[dict]:
        """The deployments whose pods have all these labels."""
        return [d for d in self.of_kind("Deployment") if selector.items() <= labels(d).items()]

    def config_of(self, deployment: dict) -> str | None:
        """The fanfare.toml that its pods mount; `None` if that ConfigMap is not among them."""
        for volume in spec(deployment).get("volumes", []):
            config = self.named("ConfigMap", volume.get("configMap", {}).get("name", ""))
            if config and "fanfare.toml" in config["data"]:
                return config["data"]["fanfare.toml"]


def title(o: dict) -> str:
    return f"{o['kind']} {o['metadata']['name']}"


def labels(deployment: dict) -> dict:
    return deployment["spec"]["template"]["metadata"]["labels"]


def spec(deployment: dict) -> dict:
    """Of its pods."""
    return deployment["spec"]["template"]["spec"]


def container(deployment: dict) -> dict:
    return spec(deployment)["containers"][0]


def ports(deployment: dict) -> dict[str, int]:
    """Its container ports by name."""
    return {p["name"]: p["containerPort"] for p in container(deployment)["ports"]}


# Each check yields sentences about what does not fit.


def services(objects):
    for service in objects.of_kind("Service"):
        for backend in objects.selected(service["spec"]["selector"]):
            for port in service["spec"]["ports"]:
                if port["port"] != ports(backend).get(port["targetPort"]):
                    yield f"{title(service)}: port {port['port']} is not {title(backend)}'s {port['targetPort']}"


def policies(objects):
    for policy in objects.of_kind("NetworkPolicy"):
        opened = {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]}
        for backend in objects.selected(policy["spec"]["podSelector"]["matchLabels"]):
            for port in opened ^ ports(backend).keys():
                yield f"{title(policy)}: port {port} of {title(backend)} and of its rules differ"
        called = [peer.get("podSelector", {}).get("matchLabels") for rule in policy["spec"]["egress"] for peer in rule["to"]]
        for tools in objects.selected({"app.kubernetes.io/component": "demo-tools"}):
            if not any(selector and selector.items() <= labels(tools).items() for selector in called):
                yield f"{title(policy)}: does not let out to {title(tools)}"


def pods(objects):
    for deployment in objects.of_kind("Deployment"):
        selectors = [deployment["spec"]["selector"]["matchLabels"]]
        selectors += [c["labelSelector"]["matchLabels"] for c in spec(deployment).get("topologySpreadConstraints", [])]
        for selector in selectors:
            if objects.selected(selector) != [deployment]:
                yield f"{title(deployment)}: {selector} does not select its own pods alone"
        account = objects.named("ServiceAccount", spec(deployment)["serviceAccountName"])
        if not account or account["automountServiceAccountToken"] is not False:
            yield f"{title(deployment)}: its ServiceAccount is not there, or mounts a token"
        known = set()
        for variable in container(deployment).get("env", []):
            for name in set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) - known:
                yield f"{title(deployment)}: $({name}) is not set before {variable['name']}"
            known.add(variable["name"])


def probes(objects):
    for deployment in objects.of_kind("Deployment"):
        have = ports(deployment)
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container(deployment).get(kind, {})
            if "grpc" in probe and probe["grpc"]["port"] != have["grpc"]:
                yield f"{title(deployment)}: {kind}: port {probe['grpc']['port']} is not grpc's"
            if "httpGet" in probe and probe["httpGet"]["port"] not in have:
                yield f"{title(deployment)}: {kind}: no port {probe['httpGet']['port']}"
        if "grpc" in container(deployment).get("livenessProbe", {}):
            yield f"{title(deployment)}: livenessProbe: gRPC health fails in a drain"


def volumes(objects):
    for deployment in objects.of_kind("Deployment"):
        for volume in spec(deployment).get("volumes", []):
            kind = "Secret" if "secret" in volume else "ConfigMap"
            name = volume["secret"]["secretName"] if kind == "Secret" else volume["configMap"]["name"]
            if not objects.named(kind, name) and (kind, name) not in BROUGHT:
                yield f"{title(deployment)}: volume {volume['name']}: there is no {kind} {name}"
            if kind == "Secret" and "fsGroup" not in spec(deployment)["securityContext"]:
                yield f"{title(deployment)}: volume {volume['name']}: no fsGroup, unreadable"
        mounts = container(deployment).get("volumeMounts", [])
        for mount in mounts:
            if "subPath" in mount:
                yield f"{title(deployment)}: no change gets to {mount['mountPath']} (subPath)"
        files = [a for a in container(deployment)["args"] if a.startswith("/")]
        files += [v["value"] for v in container(deployment).get("env", []) if v["name"].endswith("_CERTIFICATE")]
        files += re.findall(r'_file = "(.*)"', objects.config_of(deployment) or "")
        for file in files:
            if not any(f"{file}/".startswith(f"{mount['mountPath']}/") for mount in mounts):
                yield f"{title(deployment)}: nothing is mounted at {file}"


def monitors(objects):
    for monitor in objects.of_kind("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        scraped = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
        found = [
            service
            for service in objects.of_kind("Service")
            if wanted <= service["metadata"]["labels"].items() and scraped & {port["name"] for port in service["spec"]["ports"]}
        ]
        if len(found) != 1:
            yield f"{title(monitor)}: scrapes {len(found)} services, and so pods as often"


def against_settings(objects):
    """What `fanfare check` makes of each deployment's file; without one it runs the demo tools."""
    for deployment in objects.of_kind("Deployment"):
        arguments, have, text = container(deployment)["args"], ports(deployment), objects.config_of(deployment)
        if not text:
            yield from grace(deployment, 0, 25)
            if (arguments[0], arguments[2]) != ("demo-tools", f"0.0.0.0:{have['grpc']}"):
                yield f"{title(deployment)}: has no fanfare.toml, or listens on {arguments[2]}"
            continue
        done = run([FANFARE, "check", "--offline", "--config", "-"], input=text)
        if done.returncode:
            yield f"{title(deployment)}: fanfare check:\n{done.stderr}"
            continue
        settings = tomllib.loads(done.stdout)
        server = settings["server"]
        yield from grace(deployment, seconds(server["drain_delay"]), seconds(server["drain_timeout"]))
        for key, port in (("listen", "grpc"), ("admin_listen", "metrics")):
            if server[key] not in (f"0.0.0.0:{have[port]}", f"[::]:{have[port]}"):
                yield f"server.{key} is {server[key]}, port {port} {have[port]}"
        for service in settings.get("services", {}).values():
            for endpoint in service.get("endpoints", [service.get("endpoint")]):
                host, _, port = endpoint.split("://")[1].rstrip("/").partition(":")
                target = objects.named("Service", host)
                if "." not in host and not (target and int(port) in [p["port"] for p in target["spec"]["ports"]]):
                    yield f"there is no Service for {endpoint}"
        for scaler in objects.of_kind("HorizontalPodAutoscaler"):
            for metric in scaler["spec"]["metrics"]:
                limit = settings["limits"]["max_in_flight_calls"]
                if "pods" in metric and not 0 < int(metric["pods"]["target"]["averageValue"]) < limit:
                    yield f"{title(scaler)}: its target is not below max_in_flight_calls ({limit})"
        collector = [v["value"] for v in container(deployment)["env"] if v["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT"]
        for policy in objects.of_kind("NetworkPolicy") if collector else []:
            allowed = [p["port"] for r in policy["spec"]["egress"] for p in r.get("ports", [])]
            if int(collector[0].rsplit(":", 1)[1]) not in allowed:
                yield f"{title(policy)}: does not let out to {collector[0]}"


def grace(deployment, drain_delay, drain_timeout):
    """Both, the last replies and the last spans must be over before the kill."""
    needed = drain_delay + drain_timeout + constant("ABORT_GRACE") + constant("FLUSH_TIMEOUT")
    given = spec(deployment)["terminationGracePeriodSeconds"]
    if given <= needed:
        yield f"{title(deployment)}: terminationGracePeriodSeconds is {given}, needed {needed}"


def constant(name: str) -> float:
    """Seconds of a `const NAME: Duration` in the source."""
    pattern = rf"const {name}: Duration = Duration::from_(\w+)\((\d+)\);"
    found = {each for file in ROOT.glob("src/**/*.rs") for each in re.findall(pattern, file.read_text())}
    if len(found) != 1:
        fail(f"src/ has {len(found)} {name}, not one")
    ((unit, value),) = found
    return int(value) * {"secs": 1, "millis": 0.001}[unit]


def seconds(text: str) -> float:
    """Of a duration as `fanfare check` writes it, such as `1m 30s`."""
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)\s*([a-z]+)", text))


def demo_tools(objects):
    """The overlay that has the demo tools names them as the program does."""
    (source,) = [text for text in map(Path.read_text, ROOT.glob("src/**/*.rs")) if "pub const TOOLS" in text]
    table = source[source.index("pub const TOOLS") :].partition("];")[0]
    pattern = r'\(\s*("\w+"),\s*("(?:[^"\\]|\\.)*"),\s*(true|false),?\s*\)'
    known = {json.loads(n): (json.loads(d), i == "true") for n, d, i in re.findall(pattern, table)}
    tools = tomllib.loads(objects.config_of(objects.named("Deployment", "fanfare")))["tools"]
    same("the demo's tools", {n: (t["description"], t.get("idempotent", False)) for n, t in tools.items()}, known)


def normalised(objects) -> dict[str, dict]:
    """By title, without what may differ between kustomize and Helm."""
    result = {}
    for o in map(without_helms, copy.deepcopy(objects)):
        if o["kind"] == "Namespace" or "helm.sh/hook" in o["metadata"].get("annotations", {}):
            continue
        o["metadata"].pop("namespace", None)
        if o["kind"] == "ConfigMap":
            o["metadata"]["name"] = HASH.sub("", o["metadata"]["name"])
        for volume in spec(o)["volumes"] if o["kind"] == "Deployment" else []:
            if "configMap" in volume:
                volume["configMap"]["name"] = HASH.sub("", volume["configMap"]["name"])
        result[title(o)] = o
    return result


def without_helms(value):
    if isinstance(value, list):
        return [without_helms(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {k: without_helms(v) for k, v in value.items() if k not in HELMS}


def equal(a, b, where: str) -> None:
    """Says in which place two values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            equal(a.get(key), b.get(key), f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for n, pair in enumerate(zip(a, b)):
            equal(*pair, f"{where}[{n}]")
    else:
        same(where, b, a)


def serve(name: str, objects: Objects, folder: Path) -> None:
    """Starts Fanfare with the arguments and the environment of its container; whether it has what
    the autoscaler asks for, and passes `helm test`. Not the drain, which has its tests."""
    deployment = objects.named("Deployment", "fanfare")
    port, admin = free_ports(2)
    local = lambda text: text.replace("/etc/fanfare/", f"{folder}/")
    file = folder / f"{name}.toml"
    text = objects.config_of(deployment).replace("0.0.0.0:50051", f"127.0.0.1:{port}")
    file.write_text(local(text.replace("0.0.0.0:9464", f"127.0.0.1:{admin}")))
    env = {"PATH": os.environ["PATH"]}
    for variable in container(deployment)["env"]:
        value = variable.get("value", "a-" + variable["name"].lower())
        env[variable["name"]] = local(re.sub(r"\$\((\w+)\)", lambda m: env[m[1]], value))
    arguments = [a.replace("/etc/fanfare/config/fanfare.toml", str(file)) for a in container(deployment)["args"]]
    with processes() as started:
        started.start(name, [FANFARE, *arguments], f":{port}", env)
        live = container(deployment)["livenessProbe"]["httpGet"]["path"]
        for path in live, "/readyz":
            wait_for(path, lambda: get(f"http://127.0.0.1:{admin}{path}"))
        series = {line.split(" ")[0] for line in get(f"http://127.0.0.1:{admin}/metrics").splitlines()}
        for scaler in objects.of_kind("HorizontalPodAutoscaler"):
            for metric in scaler["spec"]["metrics"]:
                if "pods" in metric and metric["pods"]["metric"]["name"] not in series:
                    fail(f"{name}: {title(scaler)}: /metrics has no {metric['pods']['metric']['name']}")
        for pod in objects.of_kind("Pod"):
            arguments = [a.replace("fanfare:50051", f"127.0.0.1:{port}") for a in pod["spec"]["containers"][0]["args"]]
            done = run([FANFARE, *arguments])
            if done.returncode or f"127.0.0.1:{port}" not in arguments:
                fail(f"{name}: {title(pod)}: {arguments}: {done}")


def certificates(folder: Path) -> None:
    """What users mount: a certificate that is its own authority, and its key."""
    for name in ("tls", "otel"):
        (folder / name).mkdir(parents=True)
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 1 -subj /CN=fanfare"
    run([*command.split(), "-keyout", folder / "tls/tls.key", "-out", folder / "tls/tls.crt"], check=True)
    for name in ("tls/ca.crt", "otel/ca.crt"):
        (folder / name).write_bytes((folder / "tls/tls.crt").read_bytes())


def names(rendered: dict[str, Objects]) -> None:
    """What looks like a number or worse is a string wherever a name is."""
    plain = json.dumps(rendered.pop("named-xyzzy"))
    for name in [each for each in rendered if each.startswith("named-")]:
        equal(json.loads(plain.replace("xyzzy", name.removeprefix("named-"))), rendered.pop(name), name)


def main() -> None:
    rendered = {f.stem: Objects(f) for f in sorted(Path(sys.argv[1]).glob("*.yaml"))}
    names(rendered)
    for name, objects in rendered.items():
        checks = [services, policies, pods, probes, volumes, monitors, against_settings]
        if problems := [problem for check in checks for problem in check(objects)]:
            fail(f"{name}:\n" + "\n".join(f"  {problem}" for problem in problems))
        print(f"{name}: {len(objects)} objects: {', '.join(map(title, objects))}")
    demo_tools(rendered["demo"])
    equal(normalised(rendered["base"]), normalised(rendered["chart"]), "chart")
    with processes() as started:
        certificates(started.folder)
        for name in ("base", "demo", "production", "chart-production"):
            serve(name, rendered[name], started.folder)


main()
