"""Kubernetes objects as they were rendered: reading them, finding one's way in them."""

import copy
import re
from pathlib import Path

import yaml

# What Helm adds to each object, and what it does instead of a hash in the ConfigMap's name.
HELMS_LABELS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}
HELMS_ANNOTATIONS = {"checksum/config"}
HASH = re.compile(r"-[0-9a-z]{10}$")


def load(path: Path) -> list[dict]:
    return [o for o in yaml.safe_load_all(path.read_text()) if o]


def title(o: dict) -> str:
    return f"{o['kind']} {o['metadata']['name']}"


def of_kind(objects: list[dict], kind: str) -> list[dict]:
    return [o for o in objects if o["kind"] == kind]


def named(objects: list[dict], kind: str, name: str) -> dict | None:
    return next((o for o in of_kind(objects, kind) if o["metadata"]["name"] == name), None)


def template(deployment: dict) -> tuple[dict, dict]:
    """Labels and spec of its pods."""
    pod = deployment["spec"]["template"]
    return pod["metadata"]["labels"], pod["spec"]


def selected(objects: list[dict], selector: dict) -> list[dict]:
    """The deployments whose pods have all these labels."""
    return [
        d for d in of_kind(objects, "Deployment") if selector.items() <= template(d)[0].items()
    ]


def ports(deployment: dict) -> dict[str, int]:
    """Its container ports by name."""
    return {
        p["name"]: p["containerPort"]
        for c in template(deployment)[1]["containers"]
        for p in c.get("ports", [])
    }


def config_of(objects: list[dict], deployment: dict) -> str | None:
    """The fanfare.toml that its pods mount; `None` if that ConfigMap is not among them."""
    for volume in template(deployment)[1].get("volumes", []):
        config = named(objects, "ConfigMap", volume.get("configMap", {}).get("name", ""))
        if config and "fanfare.toml" in config["data"]:
            return config["data"]["fanfare.toml"]
    return None


def normalised(objects: list[dict]) -> dict[str, dict]:
    """By title, without what may differ between kustomize and Helm."""
    result = {}
    for o in objects:
        if o["kind"] == "Namespace" or "helm.sh/hook" in o["metadata"].get("annotations", {}):
            continue
        o = _without(copy.deepcopy(o))
        o["metadata"].pop("namespace", None)
        if o["kind"] == "ConfigMap":
            o["metadata"]["name"] = HASH.sub("", o["metadata"]["name"])
        if o["kind"] == "Deployment":
            for volume in template(o)[1]["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = HASH.sub("", volume["configMap"]["name"])
        result[title(o)] = o
    return result


def _without(value):
    if isinstance(value, list):
        return [_without(v) for v in value]
    if not isinstance(value, dict):
        return value
    gone = HELMS_LABELS | HELMS_ANNOTATIONS
    return {k: _without(v) for k, v in value.items() if k not in gone}


def differences(a, b, where: str = "") -> list[str]:
    """In which places two values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            d
            for k in sorted(a.keys() | b.keys())
            for d in differences(a.get(k), b.get(k), f"{where}.{k}" if where else k)
        ]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{where}[{i}]")
        ]
    return [] if a == b else [f"{where}: {a!r} here, {b!r} there"]
