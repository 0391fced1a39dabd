"""A service whose builds differ: each has other names for what is the same on the wire, so that a call
or a request of which one half belonged to another build would show it."""

import contextlib
import itertools
import random
import time

import grpc

from hostile import TEXT, Lie, file, with_service
from methods import called, server_of, source
from rig import Load, Rig, calls, count_of, reason, same, wait_for

# A call by the names of either build: of two in one request, one is right.
EITHER = [*calls("good", a="x"), *calls("good", b="x")]


class Build(Lie):
    """The build `a` has the field `a` and the method `OnlyA`; `b` likewise. It takes its time."""

    def __init__(self, name: str):
        message = {name: TEXT["text"]}
        super().__init__(with_service(file(X=message), Good=".lie.X", **{f"Only{name.upper()}": ".lie.X"}))
        self.methods = {"Good": self.echo, f"Only{name.upper()}": self.echo}
        self.count = 0

    def echo(self, wire: bytes, context) -> bytes:
        self.count += 1
        time.sleep(random.random() * 0.3)
        return wire


class Replicas(contextlib.ExitStack):
    """Servers on ports of their own, each started anew with another build."""

    def start(self, build: Build, port: int = 0) -> tuple[int, grpc.Server]:
        port, server = server_of(build.add_to, port=port)
        self.callback(server.stop, 0)
        return port, server


def judge(load: Load) -> dict:
    """What came of the pairs of `EITHER`: no request and no call may belong to two builds."""
    results = [result for _, result in load.results]
    seen = count_of(zip(results[::2], results[1::2]), outcomes)
    mixed = {pair: n for pair, n in seen.items() if pair not in ALLOWED and not LOST & set(pair)}
    assert not mixed, mixed
    return seen


def outcomes(pair: tuple[dict, dict]) -> tuple[str, str]:
    return tuple(str(r["observation"]) if "observation" in r else reason(r) for r in pair)


ALLOWED = {(str({"a": "x"}), "INVALID_ARGUMENTS"), ("INVALID_ARGUMENTS", str({"b": "x"}))}
# While it is started anew, and before the other build is known.
LOST = {"TOOL_UNAVAILABLE", "TOOL_FAILED", "UNKNOWN_TOOL", "CIRCUIT_OPEN"}


def changing_builds(rig: Rig, peer: str, seconds: float = 8) -> None:
    """A build changes while calls run: what its server says of itself, or the whole server."""
    builds = itertools.cycle([Build("a"), Build("b")])
    with Replicas() as replicas:
        port, server = replicas.start(next(builds))
        keys = ['refresh_interval = "1s"', "breaker.failures = 1000", "[services.source.tool_defaults]", "idempotent = true"]
        fanfare = rig.serve(source(port, *keys))
        wait_for("tool", lambda: "good" in fanfare.tools())
        with Load(fanfare, 4, EITHER) as load:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(2)
                server.stop(0.4).wait()
                _, server = replicas.start(next(builds), port)
        seen = judge(load)
        assert all(seen.get(pair, 0) > 5 for pair in ALLOWED), seen
        last = wait_for("either build", lambda: {"only_a", "only_b"} & set(fanfare.tools()))
        assert len(last) == 1, last


def known_no_longer(rig: Rig, peer: str) -> None:
    """A method that the service no longer has makes Fanfare ask anew, long before the next refresh."""
    with Replicas() as replicas:
        port, server = replicas.start(Build("a"))
        fanfare = rig.serve(source(port, 'refresh_interval = "1h"', "breaker.failures = 1000"))
        wait_for("tool", lambda: "only_a" in fanfare.tools())
        same("answer", called(fanfare, "only_a", a="x"), {"a": "x"})
        server.stop(0).wait()
        replicas.start(Build("b"), port)

        def other():
            fanfare.execute(calls("only_a", a="x"))
            return "only_b" in fanfare.tools()

        wait_for("other build", other)
        same("answer", called(fanfare, "only_b", b="x"), {"b": "x"})
        assert "only_a" not in fanfare.tools()


def two_builds(rig: Rig, peer: str) -> None:
    """Two replicas have different builds: calls go to both, by the names of one."""
    builds = [Build("a"), Build("b")]
    with Replicas() as replicas:
        ports = [replicas.start(build)[0] for build in builds]
        endpoints = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
        settings = source(0, 'refresh_interval = "1s"', "breaker.failures = 1000").replace('endpoint = "http://127.0.0.1:0"', f"endpoints = [{endpoints}]")
        fanfare = rig.serve(settings)
        wait_for("tool", lambda: "good" in fanfare.tools())
        with Load(fanfare, 4, EITHER) as load:
            time.sleep(4)
        seen = judge(load)
        assert sum(seen.get(pair, 0) for pair in ALLOWED) > 20, seen
        assert all(build.count > 5 for build in builds), [build.count for build in builds]


SCENARIOS = [(changing_builds, ["python"], {"seconds": 60}), (known_no_longer, ["python"], {}), (two_builds, ["python"], {})]
