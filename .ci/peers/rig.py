"""What the scenarios are made of: tool services, Fanfare before them, and callers."""

import concurrent.futures
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2  # so that details can be printed
from grpc_health.v1 import health_pb2
from grpc_tools import protoc

from envoy import envoy_config
from processes import LIMIT, Processes, fail, free_ports

protos, services = grpc.protos_and_services("fanfare/v1/orchestrator.proto")
tool_protos, tool_services = grpc.protos_and_services("fanfare/v1/tool.proto")
HERE = Path(__file__).parent
EXECUTE = "/fanfare.v1.OrchestratorService/ExecuteTools"
MESSAGES = [("grpc.max_receive_message_length", -1)]


class Rig:
    """Starts what a scenario needs. What was started stays for the next one."""

    def __init__(self, options, processes: Processes, folder: Path):
        self.options, self.processes, self.folder = options, processes, folder
        self.descriptors = folder / "descriptors"
        write_descriptors(self.descriptors)
        self.started: dict[tuple, int] = {}
        self.callers: dict[str, Caller] = {}
        self.count = 0

    def command(self, peer: str, *arguments: str) -> list[str]:
        """How a program in that language is run; empty if it can't be."""
        program = {
            "python": ["python3", str(HERE / "tool.py")],
            "go": [self.options.go, str(self.descriptors)],
            "node": ["node", str(HERE / "peer.js"), "proto"],
            "java": ["java", "-cp", f"{self.options.java}:{self.options.java}/*", "Tool"]
            + [str(self.descriptors)],
        }[peer]
        return [*program, *arguments]

    def available(self, peer: str) -> bool:
        """Envoy stands before a tool service in Go."""
        needs = {"envoy": "go"}.get(peer, peer)
        return peer in ("python", "tonic") or bool(getattr(self.options, needs))

    def tool(self, peer: str, *flags: str, own: str = "") -> int:
        """The port of such a tool service: of one for all, or of one's `own`."""
        key = (peer, own, *flags)
        if key not in self.started:
            self.started[key] = self.start_tool(peer, "-".join(filter(None, key)), flags)
        return self.started[key]

    def start_tool(self, peer: str, name: str, flags: tuple) -> int:
        (port,) = free_ports(1)
        ready = "listening"
        if peer == "tonic":
            command = [self.options.fanfare, "demo-tools", "--listen", f"127.0.0.1:{port}"]
        elif peer == "envoy":
            command = [self.options.envoy, "--config-yaml", envoy_config(port, self.tool("go"))]
            command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "info"]
            ready = "starting main dispatch loop"
        elif peer == "python":
            command = self.command(peer, str(port), *flags)
        else:
            command = self.command(peer, "tool", str(port))
        self.processes.start(name, command, os.environ | {"NODE_PATH": self.options.node})
        self.processes.wait_for(name, "start", lambda text: ready in text)
        # A virtual machine is slow the first time.
        self.ask(port, "echo")
        return port

    def ask(self, port: int, tool: str):
        """What such a tool observes; asked without Fanfare."""
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = tool_services.ToolServiceStub(channel)
            answer = stub.CallTool(tool_protos.CallToolRequest(name=tool), timeout=LIMIT)
        return json_format.MessageToDict(answer)["observation"]

    def fanfare(self, tool_ports, *, server: str = "", service: str = "", **tools: str):
        """Fanfare before a service that listens on these ports; `tools` are the names of
        its tools and their settings."""
        ports = tool_ports if isinstance(tool_ports, list) else [tool_ports]
        self.count += 1
        name = f"fanfare{self.count}"
        listen, admin = free_ports(2)
        endpoints = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{listen}"\nadmin_listen = "127.0.0.1:{admin}"\n'
            f"{server}\n[services.peer]\nendpoints = [{endpoints}]\n{service}\n"
            + "".join(f'[tools.{t}]\nservice = "peer"\n{keys}\n' for t, keys in tools.items())
        )
        self.processes.start(name, [self.options.fanfare, "serve", "--config", str(config)])
        self.processes.wait_for(name, "start", lambda text: f":{listen}" in text)
        return Fanfare(self, name, listen, admin)

    def caller(self, peer: str, target: str) -> "Caller":
        """A caller in that language: the same one for the same target."""
        key = f"caller-{peer}-{target}"
        if key not in self.callers:
            self.callers[key] = Caller(self, peer, target)
        return self.callers[key]

    def end_scenario(self) -> None:
        """Ends Fanfare and its callers; tool services stay."""
        for name in [n for n in self.processes.running if n.startswith(("fanfare", "caller"))]:
            process = self.processes.running.pop(name)
            process.kill()
            process.wait()


def write_descriptors(file: Path) -> None:
    """The contract, the health service and their imports, for those who load them."""
    well_known = Path(protoc.__file__).parent / "_proto"
    command = ["protoc", "--include_imports", f"--descriptor_set_out={file}", "-Iproto"]
    command += [f"-I{well_known}", "fanfare/v1/orchestrator.proto"]
    command += ["fanfare/v1/tool.proto", "google/rpc/error_details.proto"]
    if protoc.main(command):
        fail("protoc failed")
    # A set is the concatenation of its files: field 1, length-delimited.
    health = health_pb2.DESCRIPTOR.serialized_pb
    length = bytes([len(health) & 0x7F | 0x80, len(health) >> 7])
    with open(file, "ab") as out:
        out.write(b"\x0a" + length + health)


class Fanfare:
    """One process, and a caller on grpcio that has a channel of its own."""

    def __init__(self, rig: Rig, name: str, port: int, admin: int):
        self.rig, self.name, self.port, self.admin = rig, name, port, admin
        self.stub = self.new_stub()

    def new_stub(self, target: str = "", **options):
        settings = [*MESSAGES, ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(target or f"127.0.0.1:{self.port}", settings, **options)
        return services.OrchestratorServiceStub(channel)

    def execute(self, calls: list[dict], timeout: float = LIMIT, stub=None, **options):
        """The results of one request, as JSON."""
        answer = (stub or self.stub).ExecuteTools(request(calls), timeout=timeout, **options)
        return json_format.MessageToDict(answer)["results"]

    def caller(self, peer: str) -> "Caller":
        """A caller in that language."""
        return self.rig.caller(peer, f"127.0.0.1:{self.port}")

    @property
    def process(self) -> subprocess.Popen:
        return self.rig.processes.running[self.name]

    @property
    def output(self) -> str:
        return self.rig.processes.output(self.name)

    def memory(self, field: str = "VmRSS") -> float:
        """MiB of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(field + ":")[1].split()[0]) / 1024

    def breaker(self) -> set[str]:
        """The states of the tools' circuit breakers."""
        answer = json_format.MessageToDict(self.stub.ListTools(protos.ListToolsRequest()))
        return {tool["breakerState"] for tool in answer["tools"]}


class Caller:
    """A caller in another language, which takes orders one by one; see `peer.go`."""

    def __init__(self, rig: Rig, peer: str, target: str):
        self.target, self.process = target, None
        if peer != "python":
            self.process = subprocess.Popen(
                rig.command(peer, "call", target),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=os.environ | {"NODE_PATH": rig.options.node},
            )  # fmt: skip
            rig.processes.running[f"caller-{peer}-{target}"] = self.process

    def call(self, method: str, *requests: dict, timeout: float = 10, **order) -> dict:
        """Its answer: `code`, `message`, `response`."""
        order |= {"method": method, "requests": requests, "timeout": timeout}
        if self.process is None:
            return call_by_grpcio(self.target, order)
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def call_by_grpcio(target: str, order: dict) -> dict:
    method, gzip = order["method"], grpc.Compression.Gzip if order.get("gzip") else None
    asked, answered = {
        "/grpc.health.v1.Health/Check": (
            health_pb2.HealthCheckRequest,
            health_pb2.HealthCheckResponse,
        ),
        EXECUTE: (protos.ExecuteToolsRequest, protos.ExecuteToolsResponse),
    }[method]
    messages = [json_format.ParseDict(message, asked()) for message in order["requests"]]
    settings = list(MESSAGES)
    if "authority" in order:
        settings.append(("grpc.default_authority", order["authority"]))
    with grpc.insecure_channel(target, settings) as channel:
        call = channel.stream_unary(
            method,
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        try:
            metadata = list(order.get("metadata", {}).items())
            answer = call(
                iter(messages), timeout=order["timeout"], metadata=metadata, compression=gzip
            )
        except grpc.RpcError as error:
            return {"code": error.code().value[0], "message": error.details()}
    return {"code": 0, "message": "", "response": json_format.MessageToDict(answer)}


def request(calls: list[dict], **fields):
    return json_format.ParseDict({"calls": calls} | fields, protos.ExecuteToolsRequest())


def calls(tool: str, count: int = 1, timeout: str = "", **arguments) -> list[dict]:
    call = {"name": tool, "arguments": arguments} | ({"timeout": timeout} if timeout else {})
    return [call] * count


def reason(result: dict) -> str:
    """Why a call failed; empty if it didn't."""
    return result["error"]["details"][0]["reason"] if "error" in result else ""


def info(result: dict) -> dict:
    return result["error"]["details"][0].get("metadata", {})


def count_of(results, key) -> dict:
    """How many of each kind there are."""
    counts: dict = {}
    for result in results:
        counts[key(result)] = counts.get(key(result), 0) + 1
    return counts


def at_once(count: int, work) -> list:
    """What `work(i)` gives, of each of them."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


class Load:
    """Innocent callers, each on a connection of its own, one call after the other."""

    def __init__(self, fanfare: Fanfare, callers: int, calls: list[dict], pause: float = 0):
        self.fanfare, self.calls, self.pause = fanfare, calls, pause
        # (when it ended, result)
        self.results: list[tuple[float, dict]] = []
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(callers)]

    def run(self) -> None:
        stub = self.fanfare.new_stub()
        while not self.done.wait(self.pause):
            try:
                results = self.fanfare.execute(self.calls, stub=stub)
            except grpc.RpcError as error:
                results = [{"lost": f"{error.code()}: {error.details()}"}]
            self.results += [(time.monotonic(), result) for result in results]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()

    def failed(self, since: float = 0, until: float = float("inf")) -> tuple[int, int, list]:
        """How many failed, of how many, and why."""
        chosen = [r for when, r in self.results if since <= when < until]
        bad = [r for r in chosen if "observation" not in r]
        why = count_of(bad, lambda r: r.get("lost") or f"{reason(r)}: {r['error']['message']}")
        return len(bad), len(chosen), sorted(why.items(), key=lambda item: -item[1])[:3]
