#!/usr/bin/env python3
"""Tries the image: what is in it, what its configuration says, and whether it runs.

`image.py ROOT INSPECTED REVISION`: a copy of its files, what buildah says of it, what it was
built of. It is started as Kubernetes would start it: as process 1, as 65532:65532 without a
capability, its root file system read-only. Fanfare finds the image's own demo tools by the name
of a headless service. Must have a network namespace of its own.
"""

import json
import os
import signal
import stat
import sys
import tempfile
import tomllib
from pathlib import Path
from socketserver import StreamRequestHandler

from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from rig import FANFARE, LIMIT, Fanfare, Processes, calls, fail, processes, run, same, wait_for

FILES = {"etc/ssl/certs/ca-certificates.crt", FANFARE[1:]}
FOLDERS = {"etc/fanfare", "etc/ssl/certs", "usr/local/bin"}
MAX_BYTES = 28_000_000
USER = 65532
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
# What a runtime of containers does. The mount points are there already, as they
# make them, too.
CONTAINER = """
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"
mount --bind "$2" "$1/etc/fanfare"
mount -o remount,bind,ro "$1/etc/fanfare"
mount -o remount,bind,ro "$1"
root=$1 user=$3
shift 3
exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid \
    chroot --userspec="$user" --groups=65532 "$root" "$@"
"""
# As Kubernetes writes it.
RESOLV = """search fanfare.svc.cluster.local svc.cluster.local cluster.local
nameserver 127.0.0.1
options ndots:5
"""
TOOLS_NAME, TOOLS_PORT = "demo-tools-headless.fanfare.svc.cluster.local.", 50061
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
# So many addresses are too many for a reply over UDP: the resolver has to ask again over TCP.
MANY = 40


def check_labels(found: dict, revision: str) -> None:
    package, prefix = tomllib.loads(Path("Cargo.toml").read_text())["package"], "org.opencontainers.image."
    labels = {"title": "Fanfare", "revision": revision, "source": ""}
    labels |= {"description": package["description"], "licenses": package["license"], "version": package["version"]}
    same("labels", {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}, labels)


def check_files(root: Path) -> None:
    """Nothing but what is named: no shell, no library, no list of users."""
    files = {}
    for path in root.rglob("*"):
        status, name = path.lstat(), str(path.relative_to(root))
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            fail(f"{name} is neither a file nor a folder")
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWGRP | stat.S_IWOTH):
            fail(f"{name} has the mode {stat.filemode(status.st_mode)}")
        same(f"owner of {name}", (status.st_uid, status.st_gid), (0, 0))
        if path.is_file():
            files[name] = status.st_size
    same("files", files.keys(), FILES)
    same("folders", {name for name in FOLDERS if not (root / name).is_dir()}, set())
    binary = (root / FANFARE[1:]).read_bytes()
    for place in (Path.home(), Path.cwd(), Path(tempfile.gettempdir())):
        if f"{place}/".encode() in binary:
            fail(f"the binary names {place}")
    size = sum(files.values())
    if size > MAX_BYTES:
        fail(f"the image has {size} bytes, more than {MAX_BYTES}")
    print(f"files: {size / 1e6:.1f} MB, of them {len(binary) / 1e6:.1f} MB the binary")


class Names(BaseResolver):
    """The tools' addresses; remembers how it was asked for them."""

    def __init__(self):
        self.addresses, self.asked = [f"127.0.1.{n + 1}" for n in range(MANY)], set()

    def resolve(self, request, handler):
        self.asked.add(handler.protocol)
        reply = request.reply()
        if request.q.qname != TOOLS_NAME:
            reply.header.rcode = RCODE.NXDOMAIN
        elif request.q.qtype == QTYPE.A:
            reply.add_answer(*(RR(TOOLS_NAME, ttl=5, rdata=A(address)) for address in self.addresses))
        if handler.protocol == "udp" and len(reply.pack()) > 512:
            reply.header.tc, reply.rr = 1, []
        return reply


class Stream(StreamRequestHandler):
    """dnslib's own takes one query of a connection; glibc sends two."""

    protocol = "tcp"

    def handle(self):
        while size := int.from_bytes(self.rfile.read(2), "big"):
            reply = self.server.resolver.resolve(DNSRecord.parse(self.rfile.read(size)), self).pack()
            self.wfile.write(len(reply).to_bytes(2, "big") + reply)


class Containers:
    """Processes out of the image, each with mounts and process ids of its own."""

    def __init__(self, processes: Processes, root: Path, image: dict):
        self.processes, self.image, config = processes, image, processes.folder / "config"
        config.mkdir()
        (config / "fanfare.toml").write_text(CONFIG)
        self.command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", CONTAINER, "sh"]
        self.command += [root, config, image["User"], *image["Entrypoint"]]

    def start(self, name: str, ready: str, *arguments: str) -> None:
        self.processes.start(name, [*self.command, *arguments], ready, ENVIRONMENT)

    def pid(self, name: str) -> int:
        """As seen from outside: the child of `unshare`."""
        parent = self.processes.running[name].pid
        return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())

    def check_privileges(self, name: str) -> None:
        proc = Path(f"/proc/{self.pid(name)}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
        found = {key: status[key].split() for key in ("Uid", "Gid", "CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs")}
        nothing, user = ["0" * 16], [str(USER)] * 4
        wanted = dict.fromkeys(("CapEff", "CapPrm", "CapInh", "CapAmb"), nothing) | {"NoNewPrivs": ["1"]}
        same("privileges", found, wanted | {"Uid": user, "Gid": user})
        same("process id", status["NSpid"].split()[-1], "1")
        mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
        same("root's first option", [m[3] for m in mounts if m[1] == "/"][-1].split(",")[0], "ro")

    def probe(self) -> int:
        kind, *command = self.image["Healthcheck"]["Test"]
        same("health check", kind, "CMD")
        return run([*self.command[:-1], *command], env=ENVIRONMENT).returncode

    def terminate(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGTERM)
        same(f"{name}'s exit code after SIGTERM", self.processes.running[name].wait(timeout=LIMIT), 0)


def connected() -> set[str]:
    """The addresses at which Fanfare has a connection to a tool."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [row[2].split(":")[0] for row in rows if row[3] == "01" and int(row[2].split(":")[1], 16) == TOOLS_PORT]
    return {".".join(str(byte) for byte in reversed(bytes.fromhex(address))) for address in ours}


def try_it(containers: Containers, names: Names) -> None:
    containers.start("demo-tools", "listening on", "demo-tools", "--listen", f"0.0.0.0:{TOOLS_PORT}")
    containers.start("fanfare", "listening on 0.0.0.0:50051", *containers.image["Cmd"])
    containers.check_privileges("fanfare")
    fanfare = Fanfare(None, "fanfare", 50051, 9464)

    def reached() -> bool:
        """Enough calls at once that each address gets some; names are looked up while in use."""
        results = fanfare.execute([call for n in range(4 * MANY) for call in calls("echo", n=n)])
        same("results", [r.get("observation", r) for r in results], [{"n": n} for n in range(4 * MANY)])
        return connected() == set(names.addresses)

    wait_for("40 addresses, through the search list and TCP", lambda: reached() and "tcp" in names.asked)
    names.addresses = ["127.0.2.1"]
    wait_for("one other address", reached)
    assert fanfare.metric("gen_ai_execute_tool_duration_seconds_count") > 0
    same("probe's exit code", containers.probe(), 0)
    containers.terminate("fanfare")
    same("probe's exit code when nothing listens", containers.probe(), 1)
    containers.terminate("demo-tools")


def main() -> None:
    root = Path(sys.argv[1])
    image = json.loads(Path(sys.argv[2]).read_text())["Docker"]["config"]
    check_labels(image["Labels"], sys.argv[3])
    same("ports", set(image["ExposedPorts"]), {"50051/tcp", "9464/tcp"})
    check_files(root)
    for mount in "proc", "dev":
        (root / mount).mkdir()
    (root / "etc/resolv.conf").write_text(RESOLV)
    run(["ip", "link", "set", "lo", "up"], check=True)
    names = Names()
    for tcp, handler in (False, DNSHandler), (True, Stream):
        quiet = DNSLogger(logf=lambda line: None)
        DNSServer(names, address="127.0.0.1", port=53, tcp=tcp, handler=handler, logger=quiet).start_thread()
    with processes() as started:
        try_it(Containers(started, root, image), names)


main()
