#!/usr/bin/env python3
"""Checks what kustomize and Helm have rendered: schemas, whether the objects fit together
and fit the program, whether chart and base are the same. Then breaks the objects one by
one, and sees that each break is noticed. The renderings are files of one folder.
"""

import argparse
import copy
import os
import subprocess
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

import kubernetes_fit as fit
from kubernetes_mutants import MUTANTS, broken
from kubernetes_objects import (
    config_of,
    differences,
    load,
    named,
    normalised,
    of_kind,
    template,
    title,
)
from kubernetes_schema import Schemas
from processes import LIMIT, Processes, fail, free_ports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fanfare", required=True)
    parser.add_argument("--kubernetes", required=True, help="its version, such as 1.37.2")
    parser.add_argument("--definitions", required=True, type=Path, help="of custom resources")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Checks(options, Path(folder)).run()


class Checks:
    def __init__(self, options, tmp: Path):
        self.options, self.tmp = options, tmp
        self.schemas = Schemas(options.kubernetes, options.definitions)
        self.settings = {}
        certificates(tmp / "certificates")

    def run(self) -> None:
        rendered = {f.stem: load(f) for f in sorted(self.options.folder.glob("*.yaml"))}
        for name, objects in rendered.items():
            for o in objects:
                self.read_settings(name, o)
            report(name, self.problems(objects))
            print(f"{name}: {len(objects)} objects: {', '.join(map(title, objects))}")
        report("demo", fit.demo_tools(rendered["demo"]))
        report("chart", same(rendered))
        for name in ("base", "demo", "production", "chart-production"):
            self.serve(name, rendered[name])
        for mutant in MUTANTS:
            objects = copy.deepcopy(rendered[mutant.of])
            broken(objects, mutant)
            found = self.problems(objects)
            if not any(mutant.noticed in p for p in found):
                fail(f"not noticed: {mutant}: {found}")
        print(f"{len(MUTANTS)} breaks, all noticed")

    def problems(self, objects: list[dict]) -> list[str]:
        by_schema = [f"{title(o)}: {p}" for o in objects for p in self.schemas.problems(o)]
        return by_schema or fit.problems(objects, self.settings)

    def read_settings(self, name: str, o: dict) -> None:
        """Has `fanfare check` accept each file of a ConfigMap."""
        text = o.get("data", {}).get("fanfare.toml") if o["kind"] == "ConfigMap" else None
        if text and text not in self.settings:
            check = [self.options.fanfare, "check", "--offline", "--config", "-"]
            result = subprocess.run(check, input=text, capture_output=True, text=True)
            if result.returncode:
                fail(f"{name}: fanfare check:\n{result.stderr}")
            self.settings[text] = tomllib.loads(result.stdout)

    def local(self, name: str, text: str, *replaced: tuple[str, str]) -> Path:
        """The file as it can be read here: with certificates that are here."""
        for old, new in [*replaced, ("/etc/fanfare/", f"{self.tmp}/certificates/")]:
            text = text.replace(old, new)
        file = self.tmp / f"{name}.toml"
        file.write_text(text)
        return file

    def serve(self, name: str, objects: list[dict]) -> None:
        """Starts Fanfare with the arguments and the environment of its container."""
        deployment = named(objects, "Deployment", "fanfare")
        container = template(deployment)[1]["containers"][0]
        grpc, admin = free_ports(2)
        text = config_of(objects, deployment)
        addresses = [
            ("0.0.0.0:50051", f"127.0.0.1:{grpc}"),
            ("0.0.0.0:9464", f"127.0.0.1:{admin}"),
        ]
        file = self.local(name, text, *addresses)
        env = {"PATH": os.environ["PATH"]}
        for variable in container["env"]:
            value = variable.get("value", "a-" + variable["name"].lower())
            for known in env:
                value = value.replace(f"$({known})", env[known])
            env[variable["name"]] = value.replace("/etc/fanfare/", f"{self.tmp}/certificates/")
        arguments = [a.replace("/etc/fanfare/config/fanfare.toml", str(file)) for a in container["args"]]
        processes = Processes(self.tmp)
        try:
            processes.start(name, [self.options.fanfare, *arguments], env)
            live = f"http://127.0.0.1:{admin}{container['livenessProbe']['httpGet']['path']}"
            processes.wait_for(name, "health", lambda _: ok(live))
            if not ok(f"http://127.0.0.1:{admin}/readyz"):
                fail(f"{name}: is not ready")
            self.ask(name, objects, f"127.0.0.1:{grpc}", f"http://127.0.0.1:{admin}/metrics")
            # Not the drain: that has its tests, and takes drain_delay.
        finally:
            processes.kill()

    def ask(self, name: str, objects: list[dict], address: str, metrics: str) -> None:
        """Whether it has what the autoscaler asks for, and passes `helm test`."""
        with urllib.request.urlopen(metrics, timeout=LIMIT) as response:
            series = {line.split(" ")[0] for line in response.read().decode().splitlines()}
        for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
            for metric in scaler["spec"]["metrics"]:
                wanted = metric["pods"]["metric"]["name"] if "pods" in metric else None
                if wanted and wanted not in series:
                    fail(f"{name}: {title(scaler)}: /metrics has no {wanted}")
        for pod in of_kind(objects, "Pod"):
            container = pod["spec"]["containers"][0]
            arguments = [a.replace("fanfare:50051", address) for a in container["args"]]
            result = subprocess.run(
                [self.options.fanfare, *arguments], capture_output=True, text=True
            )
            if result.returncode or address not in arguments:
                fail(f"{name}: {title(pod)}: {arguments}: {result.stdout}{result.stderr}")


def ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=LIMIT) as response:
            return response.status == 200
    except OSError:
        time.sleep(0.05)
        return False


def certificates(folder: Path) -> None:
    """What users mount: a certificate that is its own authority, and its key."""
    for name in ("tls", "otel"):
        (folder / name).mkdir(parents=True)
    key, certificate = folder / "tls/tls.key", folder / "tls/tls.crt"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-days",
            "1",
            "-subj",
            "/CN=fanfare",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    for copy_ in ("tls/ca.crt", "otel/ca.crt"):
        (folder / copy_).write_bytes(certificate.read_bytes())


def same(rendered: dict[str, list[dict]]):
    """Whether the chart makes what kustomize makes."""
    yield from differences(normalised(rendered["base"]), normalised(rendered["chart"]))
    monitors = [
        monitor["spec"]
        for name in ("production", "chart-production")
        for monitor in normalised(of_kind(rendered[name], "ServiceMonitor")).values()
    ]
    if len(monitors) == 2:
        yield from differences(*monitors, "ServiceMonitor")


def report(name: str, problems) -> None:
    problems = list(problems)
    if problems:
        fail(f"{name}:\n" + "\n".join(f"  {p}" for p in problems))


if __name__ == "__main__":
    main()
