"""Services of others, whose methods are tools: what is listed of them, and what calls of them bring.

Those in Go are grpc-go's examples as they are; see `services_peer` in `tools.sh`.
"""

import concurrent.futures
import contextlib
import threading
import time

import grpc
from google.protobuf import json_format
from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rig import LIMIT, PEERS, Fanfare, Rig, calls, reason, request, same, wait_for

# A place that route_guide knows.
PLACE = {"latitude": 409146138, "longitude": -746188906}
NAME = "Berkshire Valley Management Area Trail, Jefferson, NJ, USA"
RANGE = {"lo": {"latitude": 400000000, "longitude": -750000000}, "hi": {"latitude": 420000000, "longitude": -730000000}}
INT32 = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
POINT = {"latitude": INT32, "longitude": INT32}


def source(port: int, *keys: str, name: str = "source", expose: str = '["*"]') -> str:
    """The section of a service whose methods are tools."""
    lines = [f"[services.{name}]", f'endpoint = "http://127.0.0.1:{port}"', 'protocol = "grpc"', f"expose = {expose}"]
    return "\n".join([*lines, *keys, ""])


def discovered(fanfare: Fanfare, *names: str) -> dict[str, dict]:
    """All tools, once these are known; no others may be."""
    wait_for(f"tools {names}", lambda: set(names) <= set(fanfare.tools()))
    listed = fanfare.tools()
    same("tools", sorted(listed), sorted(names))
    return listed


def called(fanfare: Fanfare, tool: str, **arguments):
    """What it observes."""
    (result,) = fanfare.execute(calls(tool, **arguments))
    assert "observation" in result, result
    return result["observation"]


def failed(fanfare: Fanfare, tool: str, **arguments) -> dict:
    """The error of a call that fails as its service says it does."""
    (result,) = fanfare.execute(calls(tool, **arguments))
    same("reason", reason(result), "TOOL_FAILED")
    return result["error"]


def examples(rig: Rig, peer: str) -> None:
    """By reflection: unary methods are tools, streams of answers if it is set, others are not and
    the log says so."""
    port = rig.start_service("reflection", ["reflection", "-port", "PORT"])
    fanfare = rig.serve(source(port, 'prefix = "go_"'))
    # Reflection itself is only streams of requests.
    listed = discovered(fanfare, "go_say_hello", "go_unary_echo")
    schema = listed["go_say_hello"]["inputSchema"]
    same("schema", schema["properties"], {"name": {"type": "string"}})
    same("schema", (schema["type"], schema["additionalProperties"]), ("object", False))
    same("schema", listed["go_say_hello"]["outputSchema"]["properties"], {"message": {"type": "string"}})
    same("service", listed["go_say_hello"]["service"], "source")
    same("answer", called(fanfare, "go_say_hello", name="Zürich"), {"message": "Hello Zürich"})
    # Without presence, an empty text is none.
    same("answer", called(fanfare, "go_unary_echo"), {})
    (result,) = fanfare.execute(calls("go_say_hello", nome="x", name=5))
    same("reason", reason(result), "INVALID_ARGUMENTS")
    fields = {v["field"] for v in result["error"]["details"][1]["fieldViolations"]}
    same("fields", fields, {"arguments.nome", "arguments.name"})
    # Its streams: one of answers, which nobody asked for here, and two of requests.
    for method in "ServerStreamingEcho", "ClientStreamingEcho", "BidirectionalStreamingEcho":
        rig.processes.says(fanfare.name, method)


def route_guide(rig: Rig, peer: str) -> None:
    """By reflection or from a descriptor set, which has comments: messages in messages, editions, a
    stream of answers as a list."""
    port = rig.start_service("route_guide", ["route_guide", "-port", "PORT"])
    keys = [] if peer == "services" else [f'descriptors = "{PEERS}-services/route_guide.binpb"']
    keys += ["[services.source.tool_defaults]", 'stream = "collect"']
    fanfare = rig.serve(source(port, *keys, expose='["routeguide.RouteGuide/*"]'))
    listed = discovered(fanfare, "get_feature", "list_features")
    same("schema", listed["get_feature"]["inputSchema"]["properties"], POINT)
    said = listed["get_feature"].get("description", "")
    assert ("Obtains the feature at a given position" in said) == (peer != "services"), listed
    feature = {"name": NAME, "location": PLACE}
    same("feature", called(fanfare, "get_feature", **PLACE), feature)
    same("no feature", called(fanfare, "get_feature", latitude=1), {"location": {"latitude": 1}})
    features = called(fanfare, "list_features", **RANGE)
    assert feature in features and len(features) == 100, (len(features), features[:3])
    same("none", called(fanfare, "list_features", lo=PLACE, hi=PLACE), [feature])
    for method in "RecordRoute", "RouteChat":
        rig.processes.says(fanfare.name, method)


def error_details(rig: Rig, peer: str) -> None:
    """A status of the service comes through with its message and details."""
    port = rig.start_service("error_details", ["error_details", "-port", "PORT"], own=str(time.time()))
    fanfare = rig.serve(source(port, f'descriptors = "{PEERS}-services/helloworld.binpb"'))
    discovered(fanfare, "say_hello")
    same("first", called(fanfare, "say_hello", name="Ada"), {"message": "Hello Ada"})
    error = failed(fanfare, "say_hello", name="Ada")
    same("status", (error["code"], error["message"]), (8, "Request limit exceeded."))
    kinds = [detail["@type"].rsplit(".", 1)[1] for detail in error["details"]]
    same("details", kinds, ["ErrorInfo", "QuotaFailure"])
    same("violations", error["details"][1]["violations"], [
        {"subject": "name:Ada", "description": "Limit one greeting per person"}
    ])  # fmt: skip


def connect(rig: Rig, peer: str) -> None:
    """A server of Connect, with either version of reflection or both."""
    sources = ""
    for n, versions in enumerate((["v1"], ["v1alpha"], ["v1", "v1alpha"])):
        port = rig.start_service("connect", ["connect", "PORT", *versions], own="".join(versions))
        sources += source(port, f'prefix = "c{n}_"', name=f"c{n}")
    fanfare = rig.serve(sources)
    discovered(fanfare, *(f"c{n}_{tool}" for n in range(3) for tool in ("say_hello", "check")))
    for n in range(3):
        same("answer", called(fanfare, f"c{n}_say_hello", name="Ada"), {"message": "Hello Ada"})
        same("health", called(fanfare, f"c{n}_check", service="helloworld.Greeter"), {"status": "SERVING"})
        error = failed(fanfare, f"c{n}_say_hello")
        same("status", (error["code"], error["message"]), (3, "who is it?"))
        violation = {"field": "name", "description": "must not be empty"}
        same("details", error["details"][1]["fieldViolations"], [violation])


def reflected(rig: Rig, peer: str) -> None:
    """The reflection of each language's gRPC: types in several files, recursive ones, well-known ones."""
    fanfare = rig.serve(source(rig.tool(peer), expose='["fanfare.v1.ToolService/CallTool"]'))
    discovered(fanfare, "call_tool")
    nested = {"a": [1, 0.5, None, {"b": "Zürich"}], "c": {}}
    same("echo", called(fanfare, "call_tool", name="echo", arguments=nested), {"observation": nested})
    error = failed(fanfare, "call_tool", name="fail", arguments={"code": 9})
    same("status", (error["code"], error["message"]), (9, "as requested"))


def server_of(*register, names=(), port: int = 0):
    """The port of a server of grpcio in this process, and the server; with reflection of what is named."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    for add in register:
        add(server)
    if names:
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return bound, server


@contextlib.contextmanager
def python_server(*register, names=()):
    """The port of such a server."""
    port, server = server_of(*register, names=names)
    try:
        yield port
    finally:
        server.stop(0)


class Slow(health_pb2_grpc.HealthServicer):
    """Health that comes only when its caller has gone; it notes what it was given."""

    def __init__(self):
        self.asked: list[tuple[float, dict]] = []
        self.gone = threading.Event()

    def Check(self, request, context):
        self.asked.append((context.time_remaining(), dict(context.invocation_metadata())))
        if context.add_callback(self.gone.set):
            self.gone.wait(LIMIT)
        return health_pb2.HealthCheckResponse()


def health_itself(rig: Rig, peer: str) -> None:
    """gRPC's own health and channelz as tools: enums, 64-bit numbers, times, wrappers, bytes."""
    healthy = health.HealthServicer()
    healthy.set("books", health_pb2.HealthCheckResponse.NOT_SERVING)
    register = [lambda server: health_pb2_grpc.add_HealthServicer_to_server(healthy, server), channelz.add_channelz_servicer]
    names = ["grpc.health.v1.Health", "grpc.channelz.v1.Channelz"]
    with python_server(*register, names=names) as port:
        fanfare = rig.serve(source(port, expose='["grpc.health.v1.*", "grpc.channelz.v1.*"]'))
        wait_for("tools", lambda: {"check", "get_servers", "get_server", "get_socket"} <= set(fanfare.tools()))
        same("health", called(fanfare, "check"), {"status": "SERVING"})
        same("health", called(fanfare, "check", service="books"), {"status": "NOT_SERVING"})
        same("code", failed(fanfare, "check", service="no.such")["code"], 5)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            direct = json_format.MessageToDict(stub.GetServers(channelz_pb2.GetServersRequest(max_results=100)))
        servers = called(fanfare, "get_servers", startServerId="0", max_results=100)
        same("servers", without_counts(servers), without_counts(direct))
        assert len(servers["server"]) >= 1, servers


def without_counts(value):
    """What channelz says, without what each call changes."""
    if isinstance(value, list):
        return [without_counts(item) for item in value]
    if not isinstance(value, dict):
        return value
    changing = ("calls", "last", "messages", "trace", "streams", "local", "remote", "socket", "listenSocket")
    return {key: without_counts(item) for key, item in value.items() if not key.startswith(changing)}


def deadline_and_cancel(rig: Rig, peer: str) -> None:
    """What remains of the time, the trace and the end of the caller reach the service."""
    slow = Slow()
    register = lambda server: health_pb2_grpc.add_HealthServicer_to_server(slow, server)
    with python_server(register, names=["grpc.health.v1.Health"]) as port:
        fanfare = rig.serve(source(port, expose='["grpc.health.v1.Health/Check"]'))
        discovered(fanfare, "check")
        trace = "0af7651916cd43dd8448eb211c80319c"
        traced = [("traceparent", f"00-{trace}-b7ad6b7169203331-01")]
        (result,) = fanfare.execute(calls("check", timeout="1.5s"), metadata=traced)
        same("reason", reason(result), "DEADLINE_EXCEEDED")
        assert slow.gone.wait(LIMIT), "the service still works"
        remained, metadata = slow.asked[-1]
        assert 0 < remained <= 1.5 and trace in metadata.get("traceparent", ""), slow.asked
        slow.gone.clear()
        running = fanfare.stub.ExecuteTools.future(request(calls("check")), timeout=LIMIT)
        wait_for("call", lambda: len(slow.asked) == 2)
        running.cancel()
        assert slow.gone.wait(LIMIT), "the service was not told that its caller has gone"


PYTHON = ["python"]
SCENARIOS = [
    (examples, ["services"], {}),
    (route_guide, ["services", "services-set"], {}),
    (error_details, ["services"], {}),
    (connect, ["services"], {}),
    (reflected, ["python", "go", "java", "node"], {}),
    (health_itself, PYTHON, {}),
    (deadline_and_cancel, PYTHON, {}),
]
