#!/usr/bin/env python3
"""Serves the demo and calls it with grpcurl, an old one and a new one.

What each of them is told by reflection, health and the RPCs must be what
`grpcurl-expected.json` says, so both see the same. Times and durations are
checked for their form only. Afterwards SIGTERM must end the server with code 0.

`--update` writes the file instead: read its diff before committing it.
"""

import argparse
import contextlib
import difflib
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPECTED = Path(__file__).with_name("grpcurl-expected.json")
ORCHESTRATOR = "fanfare.v1.OrchestratorService"
START_LIMIT, STOP_LIMIT, CALL_LIMIT = 30, 10, 20  # seconds

DESCRIBED = [ORCHESTRATOR, "fanfare.v1.ExecuteToolsRequest"]
# Success, a wait, the tool's own failure, and a name that no tool has.
MIXED = {
    "calls": [
        {"id": "a", "name": "echo", "arguments": {"city": "Zürich", "n": [1, 0.5, None]}},
        {"id": "b", "name": "sleep", "arguments": {"seconds": 0.05}},
        {"id": "c", "name": "fail", "arguments": {"code": 3, "message": "no such city"}},
        {"id": "d", "name": "no_such_tool"},
        {"id": "e", "name": "a:b"},
        {"id": "a", "name": "echo", "timeout": "-1s"},
    ]
}
# No calls, and a policy that there is not.
BAD = {"failurePolicy": 42}
# What differs from run to run, and the form that it must have.
VOLATILE = {
    "startTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "endTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "duration": r"\d+(\.\d+)?s",
    "queueDuration": r"\d+(\.\d+)?s",
    # The demo's tools have a connection once they were called.
    "connectivityState": "CONNECTIVITY_STATE_(IDLE|CONNECTING|READY)",
}


class Grpcurl:
    """One grpcurl, bound to the server's address."""

    def __init__(self, binary: str, address: str):
        self.binary, self.address = binary, address

    def transcript(self) -> dict:
        """Everything that it gets to see."""
        return {
            "list": self.run("list").split(),
            "describe": {symbol: self.describe(symbol) for symbol in DESCRIBED},
            "health": [
                self.call("grpc.health.v1.Health/Check", {"service": service})
                for service in ("", ORCHESTRATOR)
            ],
            "ListTools": steady(self.call(f"{ORCHESTRATOR}/ListTools", {})),
            "ExecuteTools": self.execute_both_ways(),
            "bad request": self.refused(f"{ORCHESTRATOR}/ExecuteTools", BAD),
        }

    def describe(self, symbol: str) -> list[str]:
        lines = (line.strip() for line in self.run("describe", symbol).splitlines())
        return [line for line in lines if line and not line.startswith("//")]

    def execute_both_ways(self) -> dict:
        """What the unary RPC answers; the stream must tell the same."""
        response = steady(self.call(f"{ORCHESTRATOR}/ExecuteTools", MIXED))
        events = steady(self.stream(f"{ORCHESTRATOR}/StreamExecuteTools", MIXED))
        same("the aggregate and the unary response", events.pop(), {"aggregate": response})
        completions = sorted((event["completion"] for event in events), key=index)
        same("the completions and the results", completions, response["results"])
        return response

    def call(self, method: str, request: dict) -> dict:
        (answer,) = self.stream(method, request)
        return answer

    def stream(self, method: str, request: dict) -> list[dict]:
        output, answers = self.run(method, request=request).strip(), []
        while output:
            answer, end = json.JSONDecoder().raw_decode(output)
            answers.append(answer)
            output = output[end:].lstrip()
        return answers

    def refused(self, method: str, request: dict) -> dict:
        done = self.start(method, request=request)
        code = re.search(r"^ *Code: (\w+)$", done.stderr, re.MULTILINE)
        if done.returncode == 0 or not code:
            fail(f"{self.binary}: {method} should have been refused:\n{done.stdout}{done.stderr}")
        return {
            "code": code[1],
            "details": re.findall(r'"@type": ?"([^"]*)"', done.stderr),
            "fields": re.findall(r'"field": ?"([^"]*)"', done.stderr),
        }

    def run(self, *verb: str, request: dict | None = None) -> str:
        done = self.start(*verb, request=request)
        if done.returncode != 0:
            fail(f"{self.binary} {' '.join(verb)} failed with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def start(self, *verb: str, request: dict | None = None) -> subprocess.CompletedProcess:
        options = ["-plaintext", "-connect-timeout", "5", "-max-time", "10"]
        if request is not None:
            options += ["-d", json.dumps(request)]
        command = [self.binary, *options, self.address, *verb]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CALL_LIMIT
        )


def steady(answer):
    """The answer with the form in place of each value that varies."""
    if isinstance(answer, list):
        return [steady(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    result = {}
    for key, value in answer.items():
        form = VOLATILE.get(key)
        if form and not (isinstance(value, str) and re.fullmatch(form, value)):
            fail(f"{key} is {value!r}, which does not match {form}")
        result[key] = f"<{key}>" if form else steady(value)
    return result


def index(result: dict) -> int:
    return result.get("index", 0)


@contextlib.contextmanager
def demo(binary: str):
    """Serves the demo; gives its address once it listens. Ends it by SIGTERM."""
    address = f"127.0.0.1:{free_port()}"
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            [binary, "demo", "--serve", "--listen", address],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            await_listening(process, address, Path(log.name))
            yield address
            stop(process)
        except BaseException:
            sys.stderr.write(Path(log.name).read_text(errors="replace")[-4000:])
            raise
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_listening(process: subprocess.Popen, address: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while f"listening on {address}" not in log.read_text(errors="replace"):
        if process.poll() is not None:
            fail(f"the server ended with {process.returncode} before it listened on {address}")
        if time.monotonic() > deadline:
            fail(f"the server did not say `listening on {address}` within {START_LIMIT} s")
        time.sleep(0.05)
    # It must be true when it is said.
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def stop(process: subprocess.Popen) -> None:
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(timeout=STOP_LIMIT)
    except subprocess.TimeoutExpired:
        fail(f"the server still ran {STOP_LIMIT} s after SIGTERM")
    if code != 0:
        fail(f"the server ended with {code} after SIGTERM")
    print(f"SIGTERM: the server ended with 0 after {time.monotonic() - start:.2f} s")


def same(what: str, found, wanted) -> None:
    if found != wanted:
        texts = [pretty(value).splitlines() for value in (wanted, found)]
        diff = "\n".join(difflib.unified_diff(*texts, "expected", "found", lineterm="", n=8))
        fail(f"{what} differ:\n{diff}")


def pretty(value) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def fail(message: str):
    sys.exit(f"grpcurl.py: {message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fanfare", required=True, help="the binary to test")
    parser.add_argument("--update", action="store_true", help=f"write {EXPECTED.name}")
    parser.add_argument("grpcurl", nargs="+", help="the grpcurls to call it with")
    options = parser.parse_args()

    with demo(options.fanfare) as address:
        transcripts = [Grpcurl(binary, address).transcript() for binary in options.grpcurl]
    if options.update:
        for other in transcripts[1:]:
            same("what the grpcurls saw", other, transcripts[0])
        EXPECTED.write_text(pretty(transcripts[0]) + "\n")
        print(f"wrote {EXPECTED}")
        return
    expected = json.loads(EXPECTED.read_text())
    for binary, transcript in zip(options.grpcurl, transcripts):
        same(f"{binary}: what it saw and {EXPECTED.name}", transcript, expected)
        print(f"{binary}: reflection, health, 3 RPCs and a refusal as expected")


if __name__ == "__main__":
    main()
