"""Scenarios about single answers: what a peer is told, and whether it can read it."""

import json

import grpc
from google.rpc import error_details_pb2, status_pb2

from rig import (
    EXECUTE, GRPCURLS, LIMIT, Rig, at_once, calls, count_of, free_ports, reason, request, run, services, wait_for,
)  # fmt: skip

CALLERS = ["python", "go", "node"]
HEALTH = "/grpc.health.v1.Health/Check"
NOT_FOUND, INTERNAL, UNIMPLEMENTED, RESOURCE_EXHAUSTED, UNAVAILABLE = 5, 13, 12, 8, 14
KIB = 1024
# An ordinary one, of a service config.
RETRY_POLICY = {
    "maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}  # fmt: skip


def hedged_pushback(rig: Rig, peer: str) -> None:
    """Attempts that are pushed back beyond the budget end their call."""
    # The breaker stays out of it, however late one of the calls comes.
    keys = 'idempotent = true\nhedge.delay = "20ms"\ntimeout = "8s"\nbreaker.failures = 1000'
    fanfare = rig.fanfare(rig.tool(peer), fail=keys)
    for result in at_once(6, lambda _: fanfare.execute(calls("fail", code=14, pushback=50))[0]):
        assert reason(result) == "TOOL_FAILED", result
        assert result["error"]["code"] == UNAVAILABLE, result
        assert float(result["duration"].removesuffix("s")) < 4, result


def unknown_health(rig: Rig, peer: str) -> None:
    """An error under `/grpc.*` reads as what it is."""
    fanfare = rig.fanfare(rig.tool("python"), echo="")
    answer = fanfare.caller(peer).call(HEALTH, {"service": "no.such"})
    assert answer["code"] == NOT_FOUND, answer


def no_reflection(rig: Rig, peer: str) -> None:
    """Without reflection grpcurl says just that."""
    fanfare = rig.fanfare(rig.tool("python"), server="reflection = false", echo="")
    done = run([GRPCURLS[peer], "-plaintext", f"127.0.0.1:{fanfare.port}", "list"])
    assert "server does not support the reflection API" in done.stderr, done.stderr


def compressed_answers(rig: Rig, peer: str) -> None:
    """A tool service that compresses what it may is understood."""
    fanfare = rig.fanfare(rig.tool(peer, "gzip"), echo="", payload='timeout = "10s"')
    (small,) = fanfare.execute(calls("echo", text="x" * 10_000))
    assert small.get("observation") == {"text": "x" * 10_000}, small
    # Each is 900 kB as it comes out, and 2 MB are too many, however few they were.
    results = fanfare.execute(calls("payload", 2, bytes=900_000) + calls("payload", bytes=2e6))
    assert [*map(reason, results)] == ["", "", "RESULT_TOO_LARGE"], count_of(results, reason)


def compressed_requests(rig: Rig, peer: str) -> None:
    """A caller that compresses is understood, and can read the answer."""
    fanfare = rig.fanfare(rig.tool("python"), echo="")
    text = "x" * 10_000
    asked = {"calls": calls("echo", text=text)}
    answer = fanfare.caller(peer).call(EXECUTE, asked, gzip=True)
    assert answer["code"] == 0 and text in json.dumps(answer["response"]), str(answer)[:500]


def compressed_both_ways(rig: Rig, peer: str) -> None:
    """If asked to, Fanfare compresses: what it sends to tools, and its answers."""
    gzip = 'compression = "gzip"'
    fanfare, text = rig.fanfare(rig.tool(peer), server=gzip, service=gzip, echo=""), "x" * 10_000
    caller = fanfare.caller(peer if peer in CALLERS else "python")
    answer = caller.call(EXECUTE, {"calls": calls("echo", text=text)})
    assert answer["code"] == 0 and text in json.dumps(answer["response"]), str(answer)[:500]


def long_headers(rig: Rig, peer: str) -> None:
    """Headers over the limit of 16 KiB are RESOURCE_EXHAUSTED."""
    fanfare = rig.fanfare(rig.tool("python"), echo="")
    for size, code in (8 * KIB, 0), (20 * KIB, RESOURCE_EXHAUSTED), (60 * KIB, RESOURCE_EXHAUSTED):
        asked, metadata = {"calls": calls("echo")}, {"x-long": "x" * size}
        answer = fanfare.caller(peer).call(EXECUTE, asked, metadata=metadata)
        assert answer["code"] == code, f"{size} bytes: {str(answer)[:300]}"
        assert fanfare.execute(calls("echo"))


def two_messages(rig: Rig, peer: str) -> None:
    """A unary call has one message; no tool is called for the first of two."""
    port = rig.tool("python")
    fanfare = rig.fanfare(port, echo="")
    before = rig.ask(port, "calls")["echo"]
    asked = {"calls": calls("echo")}
    answer = fanfare.caller(peer).call(EXECUTE, asked, asked)
    assert answer["code"] in (INTERNAL, UNIMPLEMENTED), answer
    assert rig.ask(port, "calls")["echo"] == before, "the tool was called"


def list_of_addresses(rig: Rig, peer: str) -> None:
    """A target of several addresses is served, given an `:authority`; else the log says why."""
    fanfare = rig.fanfare(rig.tool("python"), echo="")
    (nobody,) = free_ports(1)
    caller = rig.caller(peer, f"ipv4:127.0.0.1:{fanfare.port},127.0.0.1:{nobody}")
    asked = {"calls": calls("echo")}
    if caller.call(EXECUTE, asked)["code"] != 0:
        rig.processes.says(fanfare.name, "malformed authority")
    answer = caller.call(EXECUTE, asked, authority="fanfare.internal")
    assert answer["code"] == 0, answer


def no_json(rig: Rig, peer: str) -> None:
    """An observation that is no JSON costs its own call, not the response."""
    fanfare = rig.fanfare(rig.tool("python"), echo="", nan="", nothing="", absent="")
    asked = {"calls": [call for tool in ("echo", "nan", "nothing", "absent") for call in calls(tool)]}
    answer = fanfare.caller(peer).call(EXECUTE, asked)
    assert answer["code"] == 0, answer
    results = answer["response"]["results"]
    outcomes = [r["error"]["code"] if "error" in r else r["observation"] for r in results]
    assert outcomes == [{}, INTERNAL, INTERNAL, None], outcomes


def large_numbers(rig: Rig, peer: str) -> None:
    """What README says of numbers: a `Struct` rounds large ones, strings are kept."""
    fanfare = rig.fanfare(rig.tool("python"), echo="")
    number = 1234567890123456789
    asked = {"calls": calls("echo", number=number, text=str(number))}
    (result,) = fanfare.caller(peer).call(EXECUTE, asked)["response"]["results"]
    observation = result["observation"]
    assert observation["text"] == str(number), observation
    assert int(float(observation["number"])) == 1234567890123456768, observation


def summary(rig: Rig, peer: str) -> None:
    """A summary has no observations, so none of them is too large for it."""
    fanfare = rig.fanfare(rig.tool(peer), payload="")
    asked = request(calls("payload", 8, bytes=900_000), aggregateView="AGGREGATE_VIEW_SUMMARY")
    *completions, last = fanfare.stub.StreamExecuteTools(asked, timeout=20)
    assert len(completions) == 8 and all(c.completion.HasField("observation") for c in completions)
    outcomes = [result.WhichOneof("outcome") for result in last.aggregate.results]
    assert outcomes == [None] * 8, outcomes


def expiries(rig: Rig, peer: str, count: int = 400) -> None:
    """Each call that outlives its time is told which limit it was."""
    fanfare = rig.fanfare(rig.tool(peer), sleep="")
    expire = lambda _: fanfare.execute(calls("sleep", seconds=5, timeout="0.1s"))
    results = []
    while len(results) < count:
        results += sum(at_once(20, expire), [])
    ends = count_of(results, lambda r: (reason(r), r["error"]["details"][0]["metadata"].get("limit"), r["error"]["message"]))
    wrong = {end: n for end, n in ends.items() if end[:2] != ("DEADLINE_EXCEEDED", "call")}
    assert not wrong, f"{sum(wrong.values())} of {len(results)}: {wrong}"


def lost_replica(rig: Rig, peer: str) -> None:
    """A replica is killed while a tool runs: a retry policy by code runs it twice, README's rule once."""
    port = rig.tool(peer)
    policy = [{"name": [{}], "retryPolicy": RETRY_POLICY}]
    for method_config, runs in ([], 1), (policy, 2):
        replicas = [rig.fanfare(port, sleep="") for _ in range(2)]
        before = rig.ask(port, "calls").get("sleep", 0)
        count = lambda: rig.ask(port, "calls").get("sleep", 0) - before
        settings = [("grpc.service_config", json.dumps({"methodConfig": method_config}))]
        settings.append(("grpc.default_authority", "fanfare.internal"))
        target = ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)
        with grpc.insecure_channel(f"ipv4:{target}", settings) as channel:
            stub = services.OrchestratorServiceStub(channel)
            call = stub.ExecuteTools.future(request(calls("sleep", seconds=1)), timeout=LIMIT)
            wait_for("tool that runs", count)
            replicas[0].process.kill()
            # What is `retryable` would be sent again here; this is not.
            assert refusal(call.exception()) == {}, call.exception()
            # The other replica serves, and what it refuses says so.
            told = refusal(stub.ExecuteTools.future(request([])).exception())
            assert told == {"reason": "INVALID_REQUEST", "effect": "not_started", "retryable": "false"}, told
        assert (call.exception() is None) == (runs == 2), call.exception()
        assert count() == runs, f"the tool ran {count()} times"


def refusal(error: grpc.RpcError | None) -> dict:
    """What the `ErrorInfo` of an error says; empty if there is none."""
    info = error_details_pb2.ErrorInfo()
    for key, value in (error.trailing_metadata() or ()) if error else ():
        if key == "grpc-status-details-bin":
            status_pb2.Status.FromString(value).details[0].Unpack(info)
    return dict(info.metadata) | {"reason": info.reason} if info.reason else {}
