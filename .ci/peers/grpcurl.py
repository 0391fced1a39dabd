"""Scenarios with grpcurl, an old one and a new one: what each is told by reflection, health and
the RPCs of the demo."""

import json
import re

from rig import FANFARE, GRPCURLS, LIMIT, SERVICE, Rig, free_ports, run, same

REFLECTION = [f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha")]
LISTED = [SERVICE, "fanfare.v1.ToolService", "grpc.health.v1.Health", *REFLECTION]
ANSWERED = "( .fanfare.v1.{0}Request ) returns ( {1}.fanfare.v1.{2}Response );"
DESCRIBED = {
    SERVICE: [
        f"rpc ExecuteTools {ANSWERED.format('ExecuteTools', '', 'ExecuteTools')}",
        f"rpc ListTools {ANSWERED.format('ListTools', '', 'ListTools')}",
        f"rpc StreamExecuteTools {ANSWERED.format('ExecuteTools', 'stream ', 'StreamExecuteTools')}",
    ],
    "fanfare.v1.ExecuteToolsRequest": [
        "repeated .fanfare.v1.ToolCall calls = 1;",
        ".fanfare.v1.FailurePolicy failure_policy = 2;",
        "uint32 concurrency_limit = 3;",
        ".fanfare.v1.AggregateView aggregate_view = 4;",
    ],
}
# Whether a tool of the demo is idempotent; what else is said of it.
TOOLS = {
    "crash": False, "echo": True, "fail": False, "flaky": True,
    "hang": True, "panic": False, "payload": True, "sleep": True,
}  # fmt: skip
SAID = {"breakerState": "BREAKER_STATE_CLOSED", "timeout": "30s"}
# A call each: success, a wait, the tool's own failure, names that no tool has, mistakes. And what
# is said of it: its observation, or its code, reason and effect.
CALLS = [
    ({"id": "a", "name": "echo", "arguments": {"city": "Zürich", "n": [1, 0.5, None]}}, {"city": "Zürich", "n": [1, 0.5, None]}),
    ({"id": "b", "name": "sleep", "arguments": {"seconds": 0.05}}, {"slept_seconds": 0.05}),
    ({"id": "c", "name": "fail", "arguments": {"code": 3, "message": "no such city"}}, (3, "TOOL_FAILED", "done")),
    ({"id": "d", "name": "no_such_tool"}, (5, "UNKNOWN_TOOL", "not_started")),
    ({"id": "e", "name": "a:b"}, (5, "UNKNOWN_TOOL", "not_started")),
    ({"id": "a", "name": "echo", "timeout": "-1s"}, (3, "INVALID_ARGUMENTS", "not_started")),
]
MISTAKES = [
    {"field": "id", "description": 'must be unique, is that of calls[0]: "a"'},
    {"field": "timeout", "description": "must be a positive Duration, is -1s 0ns"},
]
# What differs from run to run, and the form that it must have.
TIME, LENGTH = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", r"\d+(\.\d+)?s"
VOLATILE = {"startTime": TIME, "endTime": TIME, "duration": LENGTH, "queueDuration": LENGTH}


def grpcurl_sees(rig: Rig, peer: str) -> None:
    """Everything that there is to see; then SIGTERM ends the server."""
    (port,) = free_ports(1)
    command = [FANFARE, "demo", "--serve", "--listen", f"127.0.0.1:{port}"]
    rig.processes.start("fanfare-demo", command, f"listening on 127.0.0.1:{port}")
    ask = lambda *verb, data=None: grpcurl(peer, port, *verb, data=data)

    same("list", ask("list").split(), LISTED)
    for symbol, wanted in DESCRIBED.items():
        lines = [line.strip() for line in ask("describe", symbol).splitlines()]
        fields = [line for line in lines if line.endswith(";") and not line.startswith("//")]
        same(symbol, fields, wanted)
    for service in "", SERVICE:
        health = ask("grpc.health.v1.Health/Check", data={"service": service})
        same("health", json.loads(health), {"status": "SERVING"})

    listed = json.loads(ask(f"{SERVICE}/ListTools", data={}))["tools"]
    same("tools", {tool["name"]: tool.get("idempotent", False) for tool in listed}, TOOLS)
    for tool in listed:
        same(f"{tool['name']}", {**tool, **SAID}, tool)
        assert tool["description"] and re.fullmatch("CONNECTIVITY_STATE_(IDLE|CONNECTING|READY)", tool["connectivityState"]), tool

    asked = {"calls": [call for call, _ in CALLS]}
    (answer,) = answers(ask(f"{SERVICE}/ExecuteTools", data=asked))
    results = answer["results"]
    same("results", [said_of(result) for result in results], [
        (n, call["id"], call["name"], outcome) for n, (call, outcome) in enumerate(CALLS)
    ])  # fmt: skip
    same("mistakes", results[5]["error"]["details"][1]["fieldViolations"], MISTAKES)
    # The stream tells the same.
    *events, last = answers(ask(f"{SERVICE}/StreamExecuteTools", data=asked))
    same("aggregate", last, {"aggregate": answer})
    same("completions", sorted((e["completion"] for e in events), key=lambda r: r.get("index", 0)), results)

    # No calls, and a policy that there is not.
    refused = grpcurl(peer, port, f"{SERVICE}/ExecuteTools", data={"failurePolicy": 42}, code=True)
    same("code", re.findall(r"^ *Code: (\w+)$", refused, re.M), ["InvalidArgument"])
    same("details", re.findall(r'"@type": ?"[\w./]*rpc\.(\w+)"', refused), ["ErrorInfo", "BadRequest"])
    same("fields", re.findall(r'"field": ?"([^"]*)"', refused), ["calls", "failure_policy"])
    rig.processes.stop("fanfare-demo")


def said_of(result: dict) -> tuple:
    outcome = result.get("observation")
    if error := result.get("error"):
        details = error["details"][0]
        outcome = (error["code"], details["reason"], details["metadata"]["effect"])
    return (result.get("index", 0), result["id"], result["name"], outcome)


def grpcurl(peer: str, port: int, *verb: str, data: dict | None = None, code=False) -> str:
    options = ["-plaintext", "-connect-timeout", "5", "-max-time", str(LIMIT)]
    options += [] if data is None else ["-d", json.dumps(data)]
    done = run([GRPCURLS[peer], *options, f"127.0.0.1:{port}", *verb])
    assert bool(done.returncode) == code, done
    return done.stderr if code else done.stdout


def answers(output: str) -> list[dict]:
    """The messages of a stream, without what varies."""
    found = []
    while output := output.strip():
        answer, end = json.JSONDecoder().raw_decode(output)
        found.append(steady(answer))
        output = output[end:]
    return found


def steady(answer):
    if isinstance(answer, list):
        return [steady(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    for key in VOLATILE.keys() & answer.keys():
        assert re.fullmatch(VOLATILE[key], answer[key]), (key, answer)
    missing = VOLATILE.keys() - answer.keys()
    assert "name" not in answer or not missing, answer
    assert "results" not in answer or missing == {"queueDuration"}, answer
    return {key: steady(value) for key, value in answer.items() if key not in VOLATILE}
