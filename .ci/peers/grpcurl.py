"""Scenarios with grpcurl, an old one and a new one: what each is told by reflection, health and
the RPCs of the demo."""

import json
import re

from rig import FANFARE, GRPCURLS, LIMIT, SERVICE, Rig, free_ports, run, same

LISTED = [SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
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
# A call each: success, a wait, the tool's own failure, names that no tool has, mistakes.
CALLS = [
    {"id": "a", "name": "echo", "arguments": {"city": "Zürich", "n": [1, 0.5, None]}},
    {"id": "b", "name": "sleep", "arguments": {"seconds": 0.05}},
    {"id": "c", "name": "fail", "arguments": {"code": 3, "message": "no such city"}},
    {"id": "d", "name": "no_such_tool"},
    {"id": "e", "name": "a:b"},
    {"id": "a", "name": "echo", "timeout": "-1s"},
]
DUPLICATE = 'must be unique, is that of calls[0]: "a"'
NO_NAME = "no tool is named \"a:b\": must hold only A-Z a-z 0-9 _ - . /, has ':'"
MISTAKES = [
    {"field": "id", "description": DUPLICATE},
    {"field": "timeout", "description": "must be a positive Duration, is -1s 0ns"},
]


def error(code: int, message: str, reason: str, effect: str, *more: dict) -> dict:
    kind, metadata = "type.googleapis.com/google.rpc.", {"effect": effect, "retryable": "false"}
    info = {"@type": f"{kind}ErrorInfo", "domain": "fanfare", "metadata": metadata, "reason": reason}
    details = [info, *({"@type": f"{kind}BadRequest", "fieldViolations": list(each)} for each in more)]
    return {"error": {"code": code, "message": message, "details": details}}


OUTCOMES = [
    {"observation": {"city": "Zürich", "n": [1, 0.5, None]}, "attempts": 1},
    {"observation": {"slept_seconds": 0.05}, "attempts": 1},
    error(3, "no such city", "TOOL_FAILED", "done") | {"attempts": 1},
    error(5, "no tool is named no_such_tool", "UNKNOWN_TOOL", "not_started"),
    error(5, NO_NAME, "UNKNOWN_TOOL", "not_started"),
    error(3, f"id: {DUPLICATE} (and 1 more)", "INVALID_ARGUMENTS", "not_started", MISTAKES),
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

    (answer,) = answers(ask(f"{SERVICE}/ExecuteTools", data={"calls": CALLS}))
    wanted = [
        {"id": call["id"], "name": call["name"], **outcome} | ({"index": n} if n else {})
        for n, (call, outcome) in enumerate(zip(CALLS, OUTCOMES))
    ]
    same("results", answer, {"results": wanted})
    # The stream tells the same.
    *events, last = answers(ask(f"{SERVICE}/StreamExecuteTools", data={"calls": CALLS}))
    same("aggregate", last, {"aggregate": answer})
    same("completions", sorted((e["completion"] for e in events), key=lambda r: r.get("index", 0)), wanted)

    # No calls, and a policy that there is not.
    refused = grpcurl(peer, port, f"{SERVICE}/ExecuteTools", data={"failurePolicy": 42}, code=True)
    same("code", re.findall(r"^ *Code: (\w+)$", refused, re.M), ["InvalidArgument"])
    same("details", re.findall(r'"@type": ?"[\w./]*rpc\.(\w+)"', refused), ["ErrorInfo", "BadRequest"])
    same("fields", re.findall(r'"field": ?"([^"]*)"', refused), ["calls", "failure_policy"])
    rig.processes.stop("fanfare-demo")


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
