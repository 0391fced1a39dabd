"""Scenarios in which one peer does harm and the calls of others must not suffer."""

import signal
import time

import grpc

from rig import Load, Rig, calls, count_of, reason, request

KIB = 1024


def large_context(rig: Rig, peer: str, seconds: float = 4) -> None:
    """One caller's context does not break the connection of all, nor its own calls."""
    fanfare = rig.fanfare(rig.tool(peer), echo="", sleep="")
    baggage = ",".join(f"k{i}={'v' * 100}" for i in range(116))
    for header, value in ("baggage", baggage), ("tracestate", baggage[: 12 * KIB]):
        metadata = [(header, value)]
        metadata += [("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")]
        with Load(fanfare, 20, calls("sleep", seconds=0.3)) as others:
            until, own = time.monotonic() + seconds, []
            while time.monotonic() < until:
                own += fanfare.execute(calls("echo"), metadata=metadata)
                time.sleep(0.1)
            assert fanfare.breaker() == {"BREAKER_STATE_CLOSED"}, fanfare.breaker()
        innocent_of(others, header)
        assert count_of(own, reason) == {"": len(own)}, (header, count_of(own, reason))


def frozen_replica(rig: Rig, peer: str, seconds: float = 10) -> None:
    """One replica of three hangs: soon hardly any call is lost, and none after it thaws."""
    ports = [rig.tool(peer, own=f"replica{i}") for i in range(3)]
    fanfare = rig.fanfare(ports, sleep='timeout = "500ms"')
    frozen = rig.processes.running[f"{peer}-replica0"]
    fanfare.execute(calls("sleep", 12, seconds=0.01))
    with (
        Load(fanfare, 6, calls("sleep", seconds=0.01), pause=0.05) as single,
        Load(fanfare, 1, calls("sleep", 12, seconds=0.01), pause=0.3) as batches,
    ):
        time.sleep(1)
        try:
            frozen.send_signal(signal.SIGSTOP)
            start = time.monotonic()
            time.sleep(seconds)
        finally:
            frozen.send_signal(signal.SIGCONT)
        thawed = time.monotonic()
        time.sleep(6)
    for what, load in ("single", single), ("batches", batches):
        at_first, later, after = (load.failed(start, start + 5), load.failed(start + 5, thawed), load.failed(thawed + 3))
        print(f"  {what}: failed at first {at_first[:2]}, later {later[:2]}, after it {after[:2]}")
        assert later[1] and later[0] <= 0.02 * later[1], f"{what}: {later}"
        assert after[1] and after[0] == 0, f"{what} after the thaw: {after}"


def long_call(rig: Rig, peer: str, seconds: float = 8, keepalive: str = "1s") -> None:
    """Pings on a connection on which nothing else comes do not make the peer close it."""
    fanfare = rig.fanfare(
        rig.tool(peer),
        server='[limits]\nmax_request_timeout = "15m"',
        service=f'keepalive_interval = "{keepalive}"' if keepalive else "",
        sleep='timeout = "15m"',
    )
    (result,) = fanfare.execute(calls("sleep", seconds=seconds), timeout=seconds + 30)
    assert "observation" in result, result


def failing_batches(rig: Rig, peer: str, cancels: int = 10_000) -> None:
    """Batches whose first failure cancels the rest, beside innocent calls."""
    batch = calls("fail", code=3) + calls("sleep", 255, seconds=5)
    asked = request(batch, failurePolicy="FAILURE_POLICY_CANCEL_REST")
    storm(rig, peer, cancels, 255, lambda stub: stub.ExecuteTools(asked, timeout=20))


def few_large_requests(rig: Rig, peer: str, cancels: int = 10_000) -> None:
    """A caller that gives up 4 requests of 256 calls every 30 ms."""
    cancelled_requests(rig, peer, cancels, 4, 256)


def many_small_requests(rig: Rig, peer: str, cancels: int = 10_000) -> None:
    """A caller that gives up 100 requests of 8 calls every 30 ms."""
    cancelled_requests(rig, peer, cancels, 100, 8)


def cancelled_requests(rig: Rig, peer: str, cancels: int, requests: int, size: int) -> None:
    asked = request(calls("sleep", size, seconds=5))

    def start_and_cancel(stub) -> None:
        running = [stub.ExecuteTools.future(asked) for _ in range(requests)]
        time.sleep(0.03)
        for call in running:
            call.cancel()
        # So that a loaded machine gets round to the others, too.
        time.sleep(0.03)

    storm(rig, peer, cancels, requests * size, start_and_cancel)


def storm(rig: Rig, peer: str, cancels: int, each: int, once) -> None:
    """`once` cancels `each` calls; no call of others may fail meanwhile."""
    # Envoy takes 1,024 requests at a time, and answers UNAVAILABLE to more.
    keys = "max_concurrency = 400" if peer == "envoy" else ""
    fanfare = rig.fanfare(rig.tool(peer), echo="", sleep=keys, fail="", payload="")
    fanfare.execute(calls("echo"))
    stub, start, count = fanfare.new_stub(), time.monotonic(), 0
    with Load(fanfare, 4, calls("echo"), pause=0.005) as short, Load(fanfare, 4, calls("echo", 8, text="x" * 1000)) as batches:
        while count < cancels or time.monotonic() < start + 3:
            once(stub)
            count += each
    innocent_of(short, f"{count} cancels in {time.monotonic() - start:.0f} s, single calls")
    innocent_of(batches, "batches")


def innocent_of(load: Load, what: str) -> None:
    bad, of, why = load.failed()
    print(f"  {what}: {bad} of {of} calls of others failed")
    assert of and bad == 0, f"{what}: {bad} of {of} calls of others failed: {why}"


def unread_streams(rig: Rig, peer: str) -> None:
    """Streams of 100 MB each that nobody reads."""
    unread(rig, peer, "StreamExecuteTools", calls("payload", 100, bytes=1_000_000), 8)


def unread_answers(rig: Rig, peer: str) -> None:
    """Answers of 3.6 MB each that nobody reads."""
    unread(rig, peer, "ExecuteTools", calls("payload", 4, bytes=900_000), 100)


def unread(rig: Rig, peer: str, method: str, batch: list[dict], requests: int) -> None:
    """What is not read is bounded, and goes at its deadline; honest calls are served, or shed."""
    fanfare = rig.fanfare(rig.tool("python"), echo="", payload="")
    fanfare.execute(calls("echo"))
    path = f"/fanfare.v1.OrchestratorService/{method}"
    for _ in range(requests):
        fanfare.caller(peer).call(path, {"calls": batch}, timeout=6, unread=True)
    slowest, shed, until = 0.0, 0, time.monotonic() + 9
    while time.monotonic() < until:
        start = time.monotonic()
        try:
            fanfare.execute(calls("echo"), timeout=5)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
            shed += 1
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.05)
    most = fanfare.memory("VmHWM")
    print(f"  {most:.0f} MiB at most; honest calls {slowest:.2f} s at most, {shed} shed")
    # `max_buffered_bytes` is 256 MiB, three quarters of such a pod less 64 MiB.
    assert most < (256 + 64) / 0.75, f"{most:.0f} MiB"
    assert "observation" in fanfare.execute(calls("echo"))[0]
