#!/usr/bin/env python3
"""The stack of deploy/compose.yaml as processes on loopback, without an engine.

Its configuration files are used as they are but for addresses, intervals and the
one limit that makes it easy to reach. Calls of every kind are made, services are
killed and the collector is stopped, until every metric was seen to move. Then:

- a trace of a batch came through the collector, with all its spans in their places;
- every series that a rule, a panel or a page asks for is one that there was, with
  its labels and their values, and all of telemetry.md's metrics were on the page;
- every expression can be evaluated, and those of rules and panels have data;
- gauges went up, and each alert fired that a minute can bring about.
"""

import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from processes import LIMIT, Processes, fail, free_ports, run
from stack_checks import check, spans_of_trace
from telemetry import BATCH, CLIENT, PARENT, SERVER, TRACES, TREE

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
# One host has both replicas of the demo tools, and so needs two addresses.
REPLICAS = ("127.0.0.1", "127.0.0.2")
IN_FLIGHT = 64
ADDED_LIMITS = (
    f"\n[limits]\nmax_calls_per_request = {IN_FLIGHT}\nmax_in_flight_calls = {IN_FLIGHT}\n"
)
SINK = """
receivers: {otlp: {protocols: {grpc: {endpoint: "ADDRESS"}}}}
exporters: {file: {path: "FILE", flush_interval: 100ms}}
service:
  pipelines: {traces: {receivers: [otlp], exporters: [file]}}
  telemetry: {metrics: {level: none}}
"""


def wait_for(what: str, found, limit: float = LIMIT):
    """The first truth that `found` says."""
    deadline = time.monotonic() + limit
    while not (result := found()):
        if time.monotonic() > deadline:
            fail(f"no {what} within {limit} s")
        time.sleep(0.05)
    return result


def get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=LIMIT) as reply:
            return reply.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return None


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """With each first one replaced by its second; it must be there."""
    for old, new in pairs:
        if old not in text:
            fail(f"there is no {old!r} to adapt in:\n{text}")
        text = text.replace(old, new)
    return text


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int):
        self.base = f"http://127.0.0.1:{port}/api/v1"

    def api(self, path: str, **parameters):
        url = f"{self.base}/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=LIMIT) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            fail(f"Prometheus refuses {parameters}: {error.read().decode()}")

    def query(self, expression: str) -> list:
        return self.api("query", query=expression)["result"]

    def has(self, metric: str, *matchers: str) -> bool:
        selector = "{" + ",".join([f'__name__="{metric}"', *matchers]) + "}"
        return bool(self.api("series", **{"match[]": selector}))


class Stack:
    def __init__(self, options, processes: Processes, folder: Path):
        self.options, self.processes, self.folder = options, processes, folder
        self.environment = json.loads(Path(options.project).read_text())["services"]["fanfare"][
            "environment"
        ]
        ports = free_ports(9)
        (self.listen, self.admin, self.tools, self.web, self.sink,
         self.otlp, self.otlp_http, self.health, self.own) = ports  # fmt: skip
        self.prometheus = Prometheus(self.web)
        self.traces = folder / "traces.json"

    # The processes.

    def start(self) -> None:
        sink = SINK.replace("ADDRESS", f"127.0.0.1:{self.sink}").replace("FILE", str(self.traces))
        self.run_collector("sink", sink)
        self.try_production()
        self.start_collector()
        for address in REPLICAS:
            self.start_tools(address)
        self.start_fanfare()
        self.start_prometheus()

    def run_collector(self, name: str, config: str) -> None:
        path = self.folder / f"{name}.yaml"
        path.write_text(config)
        self.processes.start(name, [self.options.collector, "--config", str(path)])
        ready = "Everything is ready"
        self.processes.wait_for(name, "start", lambda text: ready in text)

    def start_collector(self) -> None:
        text = (DEPLOY / "compose/collector.yaml").read_text()
        self.run_collector("collector", self.on_loopback(text, "jaeger:4317"))
        wait_for("health of the collector", lambda: get(f"http://127.0.0.1:{self.health}"))

    def try_production(self) -> None:
        """The collector's configuration for Kubernetes. That it starts is what it can
        show without a cluster; validating it does not look at all of it."""
        text = Path(self.options.production).read_text()
        self.run_collector("production", self.on_loopback(text, "${env:TRACES_ENDPOINT}"))
        self.kill("production")

    def on_loopback(self, config: str, backend: str) -> str:
        return replaced(
            config,
            ("0.0.0.0:4317", f"127.0.0.1:{self.otlp}"),
            ("0.0.0.0:4318", f"127.0.0.1:{self.otlp_http}"),
            ("0.0.0.0:13133", f"127.0.0.1:{self.health}"),
            (backend, f"127.0.0.1:{self.sink}"),
            ("host: 0.0.0.0", "host: 127.0.0.1"),
            ("port: 8888", f"port: {self.own}"),
        )

    def start_tools(self, address: str) -> None:
        listen = f"{address}:{self.tools}"
        command = [self.options.fanfare, "demo-tools", "--listen", listen]
        self.processes.start(f"tools {address}", command)
        self.processes.wait_for(f"tools {address}", "start", lambda text: "listening on" in text)

    def start_fanfare(self) -> None:
        text = (DEPLOY / "compose/fanfare.toml").read_text()
        endpoints = json.dumps([f"http://{address}:{self.tools}" for address in REPLICAS])
        config = self.folder / "fanfare.toml"
        config.write_text(
            replaced(
                text,
                ("0.0.0.0:50051", f"127.0.0.1:{self.listen}"),
                ("0.0.0.0:9464", f"127.0.0.1:{self.admin}"),
                ('endpoint = "http://demo-tools:50051"', f"endpoints = {endpoints}"),
            )
            + ADDED_LIMITS
        )
        environment = {
            name: value.replace("collector:4317", f"127.0.0.1:{self.otlp}")
            for name, value in self.environment.items()
        }
        command = [self.options.fanfare, "serve", "--config", str(config)]
        self.processes.start("fanfare", command, environment)
        said = f"listening on 127.0.0.1:{self.listen}"
        self.processes.wait_for("fanfare", "start", lambda text: said in text)

    def start_prometheus(self) -> None:
        rules = self.folder / "rules.yml"
        text = (DEPLOY / "observability/rules.yml").read_text()
        # Nothing here lasts for minutes.
        rules.write_text(re.sub(r"^( +for): \d+m$", r"\1: 0s", text, flags=re.M))
        text = (DEPLOY / "compose/prometheus.yml").read_text()
        config = self.folder / "prometheus.yml"
        config.write_text(
            replaced(
                text,
                ("/etc/prometheus/rules.yml", str(rules)),
                ("fanfare:9464", f"127.0.0.1:{self.admin}"),
                ("collector:8888", f"127.0.0.1:{self.own}"),
                ("interval: 5s", "interval: 500ms"),
            )
        )
        self.processes.start(
            "prometheus",
            [self.options.prometheus, f"--config.file={config}",
             f"--storage.tsdb.path={self.folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{self.web}"],
        )  # fmt: skip
        wait_for("Prometheus", lambda: get(f"http://127.0.0.1:{self.web}/-/ready"))
        wait_for("targets", lambda: len(self.prometheus.query("up == 1")) == 2)

    # The calls.

    def call_command(
        self, calls: list[dict] | None, *more: str, method=SERVER, **fields
    ) -> list[str]:
        command = [self.options.grpcurl, "-plaintext", "-max-time", "20", *more]
        request = {"calls": calls, **fields} if calls is not None else {}
        return [*command, "-d", json.dumps(request), f"127.0.0.1:{self.listen}", method]

    def call(self, calls: list[dict], *more: str, **fields) -> list[str]:
        """The reasons that its calls failed with, or the request's status."""
        done = subprocess.run(
            self.call_command(calls, *more, **fields),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        if done.returncode:
            return re.findall(r"Code: (\w+)", done.stderr) or fail(done.stderr)
        return re.findall(r'"reason": ?"(\w+)"', done.stdout)

    def expect(self, wanted: list[str], calls: list[dict], *more: str, **fields) -> None:
        if (found := self.call(calls, *more, **fields)) != wanted:
            fail(f"{str(calls):.200} ended with {found}, not {wanted}")

    def page(self) -> str:
        return get(f"http://127.0.0.1:{self.admin}/metrics") or fail("/metrics is not served")

    def value(self, metric: str) -> float:
        """The sum of its series on the page, now."""
        return sum(
            float(v) for v in re.findall(rf"^{metric}(?:\{{.*\}})? (\S+)$", self.page(), re.M)
        )

    def scraped(self, expression: str) -> None:
        """Until Prometheus has it."""
        wait_for(expression, lambda: self.prometheus.query(expression))

    def fires(self, alert: str) -> None:
        self.scraped(f'ALERTS{{alertname="{alert}",alertstate="firing"}}')

    def drive(self) -> None:
        echo = {"name": "echo", "arguments": {}}
        traced = ("-H", f"traceparent: 00-{TRACES[0]}-{PARENT}-01")
        self.expect(["TOOL_FAILED", "UNKNOWN_TOOL"], BATCH["calls"], *traced)
        # A rate needs a second sample that is higher than the first.
        for key in ("first", "second"):
            self.ordinary(key)
            self.overload()
            self.scraped(f"sum(fanfare_request_rejections_total) == {self.rejected()}")
        self.fires("FanfareErrorBudgetBurnFast")
        self.fires("FanfareErrorBudgetBurnSlow")
        self.fires("FanfareRequestsShed")
        self.fires("FanfareToolDeadlines")
        self.fires("FanfareToolErrorRatio")
        self.fires("FanfareToolOverloaded")
        self.break_tools(echo)
        self.lose_collector(echo)
        wait_for("trace", lambda: spans_of_trace(self.traces) == TREE)

    def rejected(self) -> float:
        return self.value("fanfare_request_rejections_total")

    def ordinary(self, key: str) -> None:
        """What happens on any day."""
        self.expect([], [{"name": "flaky", "arguments": {"key": key, "failures": 1}}])
        self.expect(["DEADLINE_EXCEEDED"], [{"name": "hang", "timeout": "0.2s"}])
        self.expect(["InvalidArgument"], [])
        # Context over W3C's limits stays behind.
        self.expect([], [{"name": "echo"}], "-H", "baggage: key=" + "x" * 8200)
        protos = ("-import-path", str(ROOT / "proto"), "-proto", "fanfare/v1/tool.proto")
        self.expect(["Unimplemented"], None, *protos, method=CLIENT)
        # The first failure cancels the rest.
        failing = {"name": "fail", "arguments": {"code": 5, "message": "no"}}
        cancelled = [{"name": "sleep", "arguments": {"seconds": 5}}, failing]
        self.expect(
            ["CANCELLED", "TOOL_FAILED"], cancelled, failurePolicy="FAILURE_POLICY_CANCEL_REST"
        )
        # 8 at a time, 16 wait, the others are turned away.
        sleep = {"name": "sleep", "arguments": {"seconds": 0.7}}
        self.expect(["OVERLOADED"] * 8, [sleep] * 32)

    def overload(self) -> None:
        """Fills the process, and one request more."""
        holding = subprocess.Popen(
            self.call_command([{"name": "hang"}] * (IN_FLIGHT - 4)),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(
            "calls that hang", lambda: self.value("fanfare_tool_active_calls") == IN_FLIGHT - 4
        )
        self.expect(["ResourceExhausted"], [{"name": "echo"}] * 5)
        self.fires("FanfareNearInFlightLimit")
        holding.kill()
        holding.wait()

    def kill(self, name: str) -> None:
        self.processes.running[name].send_signal(signal.SIGKILL)
        self.processes.running[name].wait()

    def break_tools(self, echo: dict) -> None:
        """One replica of the tools dies, then the other; then both are back."""
        breaker = "fanfare_tool_service_breaker_state"
        ejected = "fanfare_tool_service_ejected_addresses"
        self.kill(f"tools {REPLICAS[1]}")
        wait_for("ejected address", lambda: self.call([echo] * 8) and 0 or self.value(ejected) == 1)
        self.fires("FanfareEjectedAddresses")
        self.kill(f"tools {REPLICAS[0]}")
        wait_for("open breaker", lambda: self.call([echo]) and self.value(breaker) > 0)
        wait_for("call that is not tried", lambda: self.call([echo]) == ["CIRCUIT_OPEN"])
        self.fires("FanfareBreakerOpen")
        for address in REPLICAS:
            self.start_tools(address)
        wait_for("closed breaker", lambda: not self.call([echo]) and self.value(breaker) == 0)

    def lose_collector(self, echo: dict) -> None:
        self.processes.stop("collector")
        dropped = "fanfare_telemetry_dropped_spans_total"
        wait_for("dropped span", lambda: self.call([echo]) or self.value(dropped) > 0)
        self.fires("FanfareDroppedSpans")
        self.start_collector()


def check_stack(options, processes: Processes, folder: Path) -> None:
    stack = Stack(options, processes, folder)
    stack.start()
    stack.drive()
    check(stack)
    for name in ("fanfare", "prometheus", "collector", "sink"):
        processes.stop(name)


if __name__ == "__main__":
    required = {
        "fanfare": "the binary to test",
        "collector": "an OpenTelemetry Collector",
        "production": "the collector's configuration for Kubernetes",
        "prometheus": "a Prometheus",
        "grpcurl": "what to call it with",
        "project": "compose.yaml as JSON, resolved",
    }
    run(__doc__, required, check_stack)
