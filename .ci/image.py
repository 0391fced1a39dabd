#!/usr/bin/env python3
"""Tries the image: what is in it, what its configuration says, and whether it runs.

It is started as Kubernetes would start it: as process 1, as 65532:65532 without a
capability, its root file system read-only. Fanfare finds the image's own demo tools
by the name of a headless service. Must have a network namespace of its own.
"""

import argparse
import gzip
import io
import json
import os
import signal
import stat
import subprocess
import tarfile
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

from image_dns import Names
from processes import LIMIT, Processes, fail

FANFARE = "/usr/local/bin/fanfare"
FILES = {"etc/ssl/certs/ca-certificates.crt", FANFARE[1:]}
FOLDERS = {"etc/fanfare", "etc/ssl/certs", "usr/local/bin"}
MAX_BYTES = 25_000_000
USER = 65532
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
SERVE = ["serve", "--config", "/etc/fanfare/fanfare.toml"]

# What a runtime of containers does. The mount points are there already, as they
# make them, too.
CONTAINER = """
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"
mount --bind "$2" "$1/etc/fanfare"
mount -o remount,bind,ro "$1/etc/fanfare"
mount -o remount,bind,ro "$1"
root=$1
shift 2
exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid \
    chroot --userspec=65532:65532 --groups=65532 "$root" "$@"
"""

# As Kubernetes writes it.
RESOLV = """search fanfare.svc.cluster.local svc.cluster.local cluster.local
nameserver 127.0.0.1
options ndots:5
"""
TOOLS_NAME, TOOLS_PORT = "demo-tools-headless.fanfare.svc.cluster.local", 50061
CONFIG = f"""
[server]
listen = "0.0.0.0:50051"
admin_listen = "0.0.0.0:9464"
[services.demo]
endpoint = "http://demo-tools-headless.fanfare:{TOOLS_PORT}"
dns_refresh_interval = "1s"
[tools.echo]
service = "demo"
"""
# Too many for a reply over UDP: the resolver has to ask again over TCP.
MANY = [f"127.0.1.{n}" for n in range(1, 41)]
OTHER = ["127.0.2.1"]


def check_configuration(inspected: dict, revision: str) -> None:
    image = inspected["Docker"]
    config, package = image["config"], tomllib.loads(Path("Cargo.toml").read_text())["package"]
    prefix = "org.opencontainers.image."
    labels = {
        key.removeprefix(prefix): value
        for key, value in config["Labels"].items()
        if key.startswith(prefix)
    }
    same("user", config["User"], f"{USER}:{USER}")
    same("entry point", config["Entrypoint"], [FANFARE])
    same("command", config["Cmd"], SERVE)
    same("ports", set(config["ExposedPorts"]), {"50051/tcp", "9464/tcp"})
    same("health check", config["Healthcheck"]["Test"], ["CMD", FANFARE, "probe"])
    same(
        "labels",
        labels,
        {
            "title": "Fanfare",
            "description": package["description"],
            "licenses": package["license"],
            "version": package["version"],
            "revision": revision,
            "source": "",
        },
    )
    print(f"configuration: as it should be, for {image['architecture']}")


def check_files(root: Path) -> None:
    """Nothing but what is named: no shell, no library, no list of users."""
    files, size, archive = set(), 0, io.BytesIO()
    for path in root.rglob("*"):
        status, name = path.lstat(), str(path.relative_to(root))
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            fail(f"{name} is neither a file nor a folder")
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH):
            fail(f"{name} has the mode {stat.filemode(status.st_mode)}")
        if (status.st_uid, status.st_gid) != (0, 0):
            fail(f"{name} is not root's")
        if path.is_file():
            files.add(name)
            size += status.st_size
    same("files", files, FILES)
    same("folders", {name for name in FOLDERS if not (root / name).is_dir()}, set())

    binary = (root / FANFARE[1:]).read_bytes()
    for place in (Path.home(), Path.cwd(), Path(tempfile.gettempdir())):
        if f"{place}/".encode() in binary:
            fail(f"the binary names {place}")
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(root, "/")
    packed = len(gzip.compress(archive.getvalue()))
    if size > MAX_BYTES:
        fail(f"the image has {size} bytes, more than {MAX_BYTES}")
    print(f"files: {size / 1e6:.1f} MB, of them {len(binary) / 1e6:.1f} MB the binary; "
          f"{packed / 1e6:.1f} MB compressed")


class Containers(Processes):
    """Processes out of the image, each with mounts and process ids of its own."""

    def __init__(self, folder: Path, root: Path, config: Path):
        super().__init__(folder)
        self.command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc",
                        CONTAINER, "sh", str(root), str(config), FANFARE]

    def run(self, name: str, *arguments: str) -> None:
        self.start(name, [*self.command, *arguments], env=ENVIRONMENT)

    def output_of(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run([*self.command, *arguments], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT)
        return done.returncode, done.stdout + done.stderr

    def pid(self, name: str) -> int:
        """As seen from outside: the child of `unshare`."""
        parent = self.running[name].pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())

    def check_privileges(self, name: str) -> None:
        lines = Path(f"/proc/{self.pid(name)}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        for key in ("Uid", "Gid"):
            same(key, set(status[key].split()), {str(USER)})
        same("process id", status["NSpid"].split()[-1], "1")
        same("no new privileges", status["NoNewPrivs"], "1")
        for key in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            same(key, int(status[key], 16), 0)
        mounts = Path(f"/proc/{self.pid(name)}/mounts").read_text().splitlines()
        root = [line.split()[3] for line in mounts if line.split()[1] == "/"][-1]
        same("root's first option", root.split(",")[0], "ro")

    def terminate(self, name: str) -> None:
        start = time.monotonic()
        os.kill(self.pid(name), signal.SIGTERM)
        if code := self.running[name].wait(timeout=LIMIT):
            fail(f"{name} ended with {code} after SIGTERM:\n{self.output(name)[-4000:]}")
        print(f"SIGTERM: {name} ended with 0 after {time.monotonic() - start:.2f} s")


def grpcurl(binary: str, *arguments: str) -> str:
    command = [binary, "-plaintext", "-max-time", "10", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        fail(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def execute(binary: str) -> None:
    """Enough calls at once that each address gets some."""
    arguments = [{"n": n} for n in range(4 * len(MANY))]
    calls = [{"name": "echo", "arguments": each} for each in arguments]
    request, method = json.dumps({"calls": calls}), "fanfare.v1.OrchestratorService/ExecuteTools"
    answer = json.loads(grpcurl(binary, "-d", request, "127.0.0.1:50051", method))
    found = [result.get("observation", result) for result in answer["results"]]
    same("results", found, arguments)


def connected() -> set[str]:
    """The addresses at which Fanfare has a connection to a tool."""
    table, found = Path("/proc/net/tcp").read_text().splitlines()[1:], set()
    for line in table:
        address, port = line.split()[2].split(":")
        if line.split()[3] == "01" and int(port, 16) == TOOLS_PORT:
            found.add(".".join(str(byte) for byte in reversed(bytes.fromhex(address))))
    return found


def await_connections(binary: str, addresses: list[str]) -> None:
    """Names are looked up again while their service is in use."""
    deadline = time.monotonic() + LIMIT
    while execute(binary) or connected() != set(addresses):
        if time.monotonic() > deadline:
            fail(f"not connected to {addresses}, but to {sorted(connected())}")


def same(what: str, found, wanted) -> None:
    if found != wanted:
        fail(f"{what}: {found!r} instead of {wanted!r}")


def try_it(containers: Containers, names: Names, binary: str) -> None:
    containers.run("demo-tools", "demo-tools", "--listen", f"0.0.0.0:{TOOLS_PORT}")
    containers.wait_for("demo-tools", "port", lambda output: "listening on" in output)
    names.zone[TOOLS_NAME] = MANY
    containers.run("fanfare", *SERVE)
    containers.wait_for("fanfare", "port", lambda output: "listening on 0.0.0.0:50051" in output)
    containers.check_privileges("fanfare")
    print("process: 1, as 65532:65532, no capability, root read-only")

    services = grpcurl(binary, "127.0.0.1:50051", "list").split()
    if "fanfare.v1.OrchestratorService" not in services:
        fail(f"reflection lists {services}")
    execute(binary)
    await_connections(binary, MANY)
    same("asked over TCP", ("tcp", TOOLS_NAME) in names.asked, True)
    names.zone[TOOLS_NAME] = OTHER
    await_connections(binary, OTHER)
    print(f"names: {len(MANY)} addresses through the search list and TCP, then one other")

    with urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=LIMIT) as metrics:
        if b"\ngen_ai_execute_tool_duration_seconds_count{" not in metrics.read():
            fail("/metrics does not count the calls")
    code, output = containers.output_of("probe")
    same(f"probe's exit code ({output})", code, 0)
    print(f"grpcurl, /metrics, probe: {output.strip()}")
    containers.terminate("fanfare")
    code, output = containers.output_of("probe")
    same(f"probe's exit code when nothing listens ({output})", code, 1)
    containers.terminate("demo-tools")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, type=Path, help="a copy of its files")
    parser.add_argument("--inspected", required=True, type=Path, help="what buildah inspect says")
    parser.add_argument("--revision", required=True, help="what it was built of")
    parser.add_argument("--grpcurl", required=True)
    options = parser.parse_args()

    check_configuration(json.loads(options.inspected.read_text()), options.revision)
    check_files(options.root)

    for name in ("proc", "dev"):
        (options.root / name).mkdir()
    (options.root / "etc/resolv.conf").write_text(RESOLV)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config"
        config.mkdir()
        (config / "fanfare.toml").write_text(CONFIG)
        containers = Containers(Path(folder), options.root, config)
        try:
            try_it(containers, Names("127.0.0.1"), options.grpcurl)
        finally:
            containers.kill()


if __name__ == "__main__":
    main()
