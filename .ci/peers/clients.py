"""The tool services of `tests/clients`, and how its programs are run."""

import os
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rig import LIMIT, PEERS, Load, Rig, calls, fail, free_ports, protos, tool_protos, tool_services

LANGUAGES = ["python", "go", "node"]
# How a program is run, by its name. Its stubs are beside it, those of `rig` in its path.
COMMANDS = {
    "python": lambda name: ["python3", f"{PEERS}-python/{name}.py"],
    "go": lambda name: [f"{PEERS}-go/bin/{name}"],
    "node": lambda name: ["node", f"{PEERS}-node/out/{name}.js"],
}
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{PEERS}-python:{os.environ['PYTHONPATH']}"}


def tool_service(rig: Rig, peer: str) -> None:
    """It describes its tools, knows them by name, has health, and a rollout of it costs no call."""
    replicas = [start(rig, peer) for _ in range(2)]
    for port, _ in replicas:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = tool_services.ToolServiceStub(channel)
            (described,) = stub.ListTools(protos.ListToolsRequest()).tools
            assert described.name == "get_weather" and described.idempotent, described
            assert list(described.input_schema["required"]) == ["city"], described
            other = stub.CallTool.future(weather("other"))
            assert other.exception().code() == grpc.StatusCode.UNIMPLEMENTED, other
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health.SERVING, health
    # What arrives as it ends, grpcio answers with CANCELLED.
    keys = 'idempotent = true\nretry.codes = ["UNAVAILABLE", "CANCELLED"]' if peer == "python" else ""
    fanfare = rig.fanfare([port for port, _ in replicas], get_weather=keys)
    with Load(fanfare, 4, calls("get_weather", 5, city="Oslo")) as load:
        time.sleep(0.5)
        rig.processes.stop(replicas[0][1])
        time.sleep(0.3)
    bad, of, why = load.failed()
    assert of and not bad, f"{bad} of {of}: {why}"


def given_up(rig: Rig, peer: str) -> None:
    """Calls that nobody waits for any more do not go on: it could not end before they had."""
    slow = rig.folder / f"slow-{peer}.py"
    with open(COMMANDS[peer]("tool_service")[1]) as source:
        slow.write_text(source.read().replace("sleep(0.1)", "sleep(3600)"))
    port, name = start(rig, peer, ["python3", slow])
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = tool_services.ToolServiceStub(channel)
        asked = weather("get_weather")
        by_deadline = [stub.CallTool.future(asked, timeout=0.5) for _ in range(50)]
        by_caller = [stub.CallTool.future(asked) for _ in range(50)]
        for call in by_deadline:
            assert call.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
        for call in by_caller:
            call.cancel()
        begun = time.monotonic()
        rig.processes.stop(name)
        # It waits 25 s for what runs.
        assert time.monotonic() - begun < 15, "calls went on"


def weather(tool: str):
    asked = tool_protos.CallToolRequest(name=tool)
    asked.arguments.update({"city": "Oslo"})
    return asked


def start(rig: Rig, peer: str, command: list | None = None) -> tuple[int, str]:
    """Its port, and its name as a process; of this scenario alone."""
    (port,) = free_ports(1)
    name = f"caller-tool-service-{port}"
    command = [*(command or COMMANDS[peer]("tool_service")), f"127.0.0.1:{port}"]
    rig.processes.start(name, command, env=ENVIRONMENT)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=LIMIT)
        except grpc.FutureTimeoutError:
            fail(f"{name} does not listen:\n{rig.processes.output(name)}")
    return port, name
