"""Processes for the gate's checks: started, waited for, ended, killed at the end."""

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 30  # seconds, for anything


class Processes:
    """Processes with their output in files; killed at the end."""

    def __init__(self, folder: Path):
        self.folder, self.running = folder, {}

    def start(self, name: str, command: list[str], env: dict | None = None) -> None:
        log = open(self.folder / name, "wb")
        self.running[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
        )

    def output(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def wait_for(self, name: str, what: str, found):
        """The first truth that `found` says of the output."""
        deadline = time.monotonic() + LIMIT
        while not (result := found(self.output(name))):
            if time.monotonic() > deadline or self.running[name].poll() is not None:
                others = "".join(f"{n}:\n{self.output(n)[-2000:]}\n" for n in self.running)
                fail(f"{name}: no {what}:\n{others}")
            time.sleep(0.05)
        return result

    def stop(self, name: str) -> None:
        process = self.running[name]
        process.send_signal(signal.SIGTERM)
        if code := process.wait(timeout=LIMIT):
            fail(f"{name} ended with {code}:\n{self.output(name)[-4000:]}")

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def run(doc: str, required: dict[str, str], check, **optional: str) -> None:
    """Has `check(options, processes, folder)` done, as the command line says."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for option, what in required.items():
        parser.add_argument(f"--{option}", required=True, help=what)
    for option, what in optional.items():
        parser.add_argument(f"--{option}", default="", help=what)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder))
        try:
            check(options, processes, Path(folder))
        finally:
            processes.kill()


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def fail(message: str):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")
