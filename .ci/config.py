"""Holds the JSON Schema of the configuration against `fanfare check`, by Taplo, which is what
editors check TOML with. That the files there are what the code says, `cargo test` checks.

What the one accepts, the other must accept: every key of the schema with values of
VALUES, the files of FILES, and every configuration in this repository. What
`fanfare check` refuses, the schema must refuse, but for EXCEPTIONS, which name what a
schema can't know. Each exception must be met.
"""

import json
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rig import FANFARE, fail, run

SCHEMA = Path("deploy/config/fanfare.schema.json")
EXAMPLE = Path("deploy/config/fanfare.example.toml")

# As TOML. Each is tried with a key of each form, those of the first line with each.
VALUES = """
0 -1 2147483648 1.5 true 07:32:00 {} [] "" "x" "0s" "25h" "2GiB" "http://a" "127.0.0.1:1"
0 1 5 6 100 101 1024 4095 4096 65536 1000000 1000001 1048577 2147483647 2147483648 -1 0x10
1.5 true false 07:32:00 {} [] [1]
"" "0" "0s" "0ms" "1ms" "999us" "1m 30s" "1m30s" "1.5h" "24h" "25h" "1day" "-1s" "5" "5S" "s"
"1e3s" "1nanos" "2nsec" "3usec" "1000µs" "4millis" "5msec" "6seconds" "7second" "8secs" "9sec"
"1minutes" "2minute" "3min" "4mins" "1hours" "1hour" "1hr" "1hrs" "1days" "1d" "1weeks" "1week"
"1wk" "1wks" "1w" "1months" "1month" "1M" "1years" "1year" "1yr" "1yrs" "1y" " 5s " "1 000 ms"
"1.5.5s" ".5s" "5.s" "99999999999999999999s" "p95" "p99"
"1" "4096B" "64KiB" "1MiB" "1GiB" "2GiB" "4KB" "1.5MiB" "1 MiB" "1kib"
"127.0.0.1:1" "127.0.0.1" "127.0.0.1:65536" "127.0.0.1:0" "1.2.3.4.5:1" "[::1]:1" "[fe80::1%2]:3"
"::1" "localhost:1" "off" "OFF"
"http://a" "http://a/" "https://a:1" "HTTPS://a.b:443" "http://[::1]:80" "http://a:0" "http://a:65536"
"http://a:" "http://u@a" "http://a/b" "http://a?q" "http://a#f" "grpc://a" "a:1" "http://" "http://a b"
["http://a"] ["https://a","http://b:1"] ["http://a","http://a"] ["http://a","http://a/"] ["a"]
"fanfare" "grpc" "reflection" "collect" "a.B/C" "a_" ["a.*"] ["*","a b"] ["A/é"]
["UNAVAILABLE"] ["ABORTED","ABORTED"] ["OK"] ["unavailable"] [14]
"""

# Whole files: what is said of each.
GOOD, BAD = "good", "bad"
SERVICE = 'services.s.endpoint = "http://a"\n'
TOOL = SERVICE + 'tools.t.service = "s"\n'
SURE = TOOL + "tools.t.idempotent = true\n"
LONG = "x" * 64
TLS = "tests/it/support/tls/client"
FILES = [
    (GOOD, ""),
    (GOOD, "[server]\n[limits]\n[services]\n[tools]\n"),
    (BAD, "colour = 1"),
    (BAD, "server = 1"),
    (BAD, "[[server]]"),
    (BAD, "[server]\nreflecton = true"),
    (BAD, "[limits]\nlisten = '127.0.0.1:1'"),
    (BAD, "[limits]\nmax_in_flight_calls = 255"),
    (BAD, "[limits]\nmax_result_bytes = '5MiB'"),
    (BAD, "[services]\na = 1"),
    (BAD, "[services.a]"),
    (BAD, "[services.a.b]\nendpoint = 'http://a'"),
    (BAD, SERVICE + 'services.s.endpoints = ["http://b"]'),
    (BAD, SERVICE + "services.s.breaker.opentime = '1s'"),
    (BAD, SERVICE + "services.s.retry_budget = 1"),
    (GOOD, f"services.{LONG}.endpoint = 'http://a'"),
    (BAD, f"services.{LONG}x.endpoint = 'http://a'"),
    (BAD, "services.'a/b'.endpoint = 'http://a'"),
    (BAD, "services.''.endpoint = 'http://a'"),
    (BAD, SERVICE + "services.s.tls = {}"),
    (GOOD, "services.s = { endpoint = 'https://a', tls = {} }"),
    (GOOD, "services.s = { endpoints = ['http://b', 'https://a'], tls.server_name = 'c' }"),
    (BAD, "services.s = { endpoints = ['http://b', 'http://a'], tls.server_name = 'c' }"),
    (BAD, f"services.s = {{ endpoint = 'https://a', tls.cert_file = '{TLS}.pem' }}"),
    (BAD, f"services.s = {{ endpoint = 'https://a', tls.key_file = '{TLS}.key' }}"),
    (GOOD, f"services.s.endpoint = 'https://a'\n[services.s.tls]\ncert_file = '{TLS}.pem'\nkey_file = '{TLS}.key'"),
    (BAD, "[tools.t]"),
    (GOOD, SERVICE + f"tools.'{LONG}/{LONG[1:]}'.service = 's'"),
    (BAD, SERVICE + f"tools.'{LONG}/{LONG}'.service = 's'"),
    (BAD, SERVICE + "tools.'a b'.service = 's'"),
    (GOOD, TOOL + "tools.t.retry.initial_backoff = '1ms'"),
    (BAD, TOOL + "tools.t.retry.max_attempts = 3"),
    (BAD, TOOL + "tools.t.retry.codes = []"),
    (BAD, TOOL + "tools.t.hedge.delay = '1s'"),
    (BAD, TOOL + "tools.t.idempotent = false\ntools.t.hedge.delay = '1s'"),
    (GOOD, SURE + "tools.t.hedge.delay = '1s'\ntools.t.retry.max_attempts = 5"),
    (BAD, SURE + "tools.t.hedge = {}"),
    (GOOD, SERVICE + "services.s.protocol = 'grpc'"),
    (GOOD, SERVICE + "services.s.protocol = 'grpc'\nservices.s.refresh_interval = '1m'"),
    (BAD, SERVICE + "services.s.refresh_interval = '1m'"),
    (BAD, SERVICE + "services.s.protocol = 'grpc'\nservices.s.hide = ['*']"),
    (BAD, SERVICE + "services.s.prefix = 'a_'\nservices.s.expose = []"),
    (BAD, SERVICE + "services.s.tool_defaults = {}"),
    (BAD, SERVICE + "services.s.descriptors = 'reflection'"),
    (GOOD, SERVICE + "services.s.expose = ['*']\nservices.s.tool_defaults.hedge.delay = '1s'"),
    (BAD, SERVICE + "services.s.expose = ['*']\nservices.s.tool_defaults = { idempotent = false, hedge.delay = '1s' }"),
    (BAD, SERVICE + "services.s.expose = ['*']\nservices.s.tool_defaults.stream = 'collect'"),
    (BAD, SERVICE + "services.s.protocol = 'grpc'\ntools.t.service = 's'"),
    (BAD, TOOL + "tools.t.stream = 'collect'"),
    (BAD, SURE + "tools.t.retries = 3"),
]

# What only `fanfare check` knows: of a mistake that it names, what the schema may
# accept. A value that is quoted has the right type.
SIZE = r'"[0-9]+[A-Za-z]*"'
EXCEPTIONS = {
    "that a time is no string, which in JSON it is": r"got the time 07:32:00$",
    "limits of durations": r'a duration such as .* from (\S+) to 24h, got "[^-].*"$',
    "limits of sizes with a unit": rf"a size such as .*, got {SIZE}$",
    "that an address exists": r'an IP address and port .*, got "[0-9.]+:[0-9]+"$',
    "that a port exists": r'endpoints? such as .*, got "http://a:(0|65536)"$',
    "that endpoints are the same": r'endpoints such as .* \(not "http://a/"\)',
    "which services there are": r'a service of this file.*, got ".*"$',
    "what is in files": r'(a PEM file|the path of a file) with .*, got ".*"$',
    "what the service of a tool speaks": r'a method such as .*, got ".*"(?: \(the default\))?$|only for a service with protocol = "grpc"$',
    "what is a host name": r'a host name or IP address, got ".+"$',
    "limits that follow from other values": r"expected at (least|most) ",
}


def keys(schema, path=()):
    """The path of every setting, and its form."""
    for name, value in schema.get("properties", {}).items():
        if value.get("type") == "object":
            yield from keys(value, (*path, name))
        else:
            yield (*path, name), str({k: v for k, v in value.items() if k not in ("default", "description")})
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys(schema["additionalProperties"], (*path, {"services": "s"}.get(path[0], "t")))


def with_value(key, value):
    """A file that sets `key`, and what is needed beside it."""
    needed = {
        "services.s.endpoint": '"https://a"',
        "services.s.protocol": '"grpc"',
        "services.s.expose": '["*"]',
        "tools.t.service": '"s"',
        "tools.t.remote": '"a.B/C"',
        "tools.t.idempotent": "true",
    }
    # `endpoints` instead of `endpoint`, too.
    lines = [f"{k} = {v}" for k, v in needed.items() if not key.startswith(k)]
    return "\n".join([*lines, f"{key} = {value}", ""])


def cases():
    """A name for each file, what is said of it (or `None`), and the file."""
    yield from ((f"FILES[{n}]", *each) for n, each in enumerate(FILES))
    # What the repository shows people: files, and blocks of TOML in pages.
    for path in sorted(Path("deploy").rglob("fanfare*.toml")):
        yield str(path), GOOD, path.read_text()
    for page in [Path("README.md"), *sorted(Path("deploy").rglob("*.md"))]:
        for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.S):
            yield str(page), GOOD, block
    some, more = (re.findall(r'(?:"[^"]*"|\S)+', text) for text in VALUES.strip().split("\n", 1))
    forms = set()
    for path, form in keys(json.loads(SCHEMA.read_text())):
        key = ".".join(path)
        yield from ((f"{key} = {value}", None, with_value(key, value)) for value in (some if form in forms else some + more))
        forms.add(form)


def check(path):
    """The mistakes that `fanfare check` names."""
    done = run([FANFARE, "check", "--config", path])
    assert done.returncode in (0, 1), done
    lines = done.stderr.splitlines()[1:] if done.returncode else []
    return [re.sub(r"^line \d+, column \d+: ", "", line) for line in lines]


def refused_by_schema(folder):
    """The names of the files that the schema refuses."""
    command = ["taplo", "lint", "--no-auto-config", "--colors=never", "--schema", SCHEMA.resolve().as_uri()]
    said = run([*command, f"{folder}/*.toml"], env=os.environ | {"RUST_LOG": "info"}, timeout=100).stderr
    assert f"found files total={len(list(folder.iterdir()))} " in said, said
    return {Path(path).name for path in re.findall(r'invalid file error=.* path="(.*)"', said)}


def example_names_its_schema(folder):
    """Beside its schema, the example is refused once it has a mistake."""
    shutil.copy(SCHEMA, folder)
    for mistake, code in ("", 0), ("[server.sever]\n", 1):
        (folder / EXAMPLE.name).write_text(EXAMPLE.read_text() + mistake)
        done = run(["taplo", "lint", "--no-auto-config", EXAMPLE.name], cwd=folder)
        assert done.returncode == code, done
    for file in folder.iterdir():
        file.unlink()


def main(folder):
    example_names_its_schema(folder)
    tried = list(cases())
    files = [folder / f"{number}.toml" for number in range(len(tried))]
    for file, (_, _, text) in zip(files, tried):
        # Not by the schema of its own.
        file.write_text(text.replace("#:schema", "# schema"))
    with ThreadPoolExecutor() as pool:
        mistakes = list(pool.map(check, files))
    refused = refused_by_schema(folder)
    # On a busy machine Taplo now and then passes over one of thousands: those that it alone
    # accepts are checked again by themselves.
    doubtful = [file for file, found in zip(files, mistakes) if found and file.name not in refused]
    with tempfile.TemporaryDirectory() as again:
        for file in doubtful:
            shutil.copy(file, again)
        refused |= refused_by_schema(Path(again))
    problems, met = [], set()
    for (name, verdict, text), file, found in zip(tried, files, mistakes):
        # Certificates are where it will run.
        if name.startswith("deploy/") and all("a PEM file" in one and "can't be read" in one for one in found):
            found = []
        excused = [{what for what, of in EXCEPTIONS.items() if re.search(of, one)} for one in found]
        if verdict and (verdict == GOOD) != (not found):
            problems.append(f"{name} should be {verdict}: {found or 'accepted'}\n{text}")
        if file.name in refused and not found:
            problems.append(f"{name}: only the schema refuses it")
        elif file.name not in refused:
            met.update(*excused)
            if not all(excused):
                problems.append(f"{name}: only `fanfare check` refuses it: {found}")
    problems += [f"not met: {what}" for what in EXCEPTIONS if what not in met]
    if problems:
        fail("\n".join(problems[:40] + [f"{len(problems)} problems"]))
    bad = sum(map(bool, mistakes))
    print(f"{len(tried)} configurations: {bad} bad ones, of which the schema refuses {len(refused)}")


with tempfile.TemporaryDirectory() as temporary:
    main(Path(temporary))
