"""The agents of `tests/clients`: what each would tell its model next, after a turn with real tools."""

import json
import re
import subprocess
import time

from google.protobuf import json_format

import models
from clients import COMMANDS, ENVIRONMENT, start
from rig import FANFARE, LIMIT, PEERS, ROOT, Fanfare, Rig, at_once, calls, protos, request, run, wait_for

CLASSPATH = f"{PEERS}-java:{PEERS}-java/*"
# Which provider's API each speaks, and how it is run.
AGENTS = {
    "python": ("openai_chat", COMMANDS["python"]("agent")),
    "asyncio": ("anthropic", COMMANDS["python"]("agent_asyncio")),
    "go": ("openai_responses", COMMANDS["go"]("agent")),
    "node": ("openai_chat", COMMANDS["node"]("agent")),
    "java": ("anthropic", ["java", "-cp", CLASSPATH, "Agent"]),
}
# The seconds that each gives its tools.
SECONDS = 10
# A turn: id, tool and the text that the model wrote; and what it is told. None: see `turns`.
TURN = [
    # By its alias: no model can call it `demo.sleep`.
    ("sleeps", "demo_sleep", '{"seconds": 0.8}', {"slept_seconds": 0.8}),
    ("echoes", "echo", '{"n": 3, "text": "<Ø> \\"&\\"", "all": [1.5, null, true]}', {"n": 3, "text": '<Ø> "&"', "all": [1.5, None, True]}),
    ("hangs", "hang", "{}", None),
    ("fails", "fail", '{"code": "NOT_FOUND", "message": "no such city"}', {"error": "no such city", "retryable": False}),
    ("is down", "fail", '{"code": "UNAVAILABLE", "message": "later"}', {"error": "later", "retryable": True}),
    ("digits", "echo", '{"id": 9007199254740993, "of": [123456789012345678901]}', None),
    ("unknown", "ecko", "{}", None),
    ("again", "echo", '{"n": 4}', {"n": 4}),
]
# What README's agent is told of calls that were not made.
NO_CITY = {
    "error": "arguments.city: is required", "retryable": False,
    "violations": [{"field": "arguments.city", "description": "is required"}],
}  # fmt: skip
UNKNOWN = "no tool is named get_wether, did you mean get_weather?"
# Services that say themselves which tools they have.
EXPOSE = 'expose = ["*"]'
# Text that is no JSON: only those can get it whose models write text.
BROKEN = ("broken", "echo", '{"text": "cut', None)


def agents(rig: Rig, peer: str) -> None:
    """Each agent has its turn with the tool service in this language: README's."""
    fanfare = rig.fanfare(start(rig, peer)[0], service=EXPOSE)
    wait_for("tool", lambda: tools_of(fanfare).get("get_weather", {}).get("inputSchema"))
    weather = ("call_1", {"city": "Oslo", "celsius": 21.5})
    for language in filter(rig.available, AGENTS):
        recorded = f"{ROOT}/tests/clients/answers/{AGENTS[language][0]}.json"
        first, of_empty, unknown = turn(language, fanfare, recorded)[0]
        assert first == weather, (language, first)
        assert of_empty == ("call_2", NO_CITY), (language, of_empty)
        assert unknown == ("call_3", {"error": UNKNOWN, "retryable": False}), (language, unknown)
    # They read to the end: no request was cancelled.
    assert "CANCELLED" not in fanfare.output, fanfare.output


def turns(rig: Rig, peer: str) -> None:
    """Whatever becomes of single calls, each is answered, in the order of the calls; one that hangs
    costs its own answer."""
    once = "idempotent = true\nretry.max_attempts = 1"
    tools = {"hang": 'timeout = "3s"\nidempotent = false', "fail": once, '"demo.sleep"': 'remote = "sleep"', '"large.file"': described(rig)}
    fanfare = rig.fanfare(rig.tool(peer), service=EXPOSE, **tools)
    wait_for("tools", lambda: "flaky" in tools_of(fanfare))
    all_at_once(rig, lambda language: one_turn(rig, language, fanfare))


def tools_of(fanfare: Fanfare) -> dict:
    """What it lists, by name."""
    tools = json_format.MessageToDict(fanfare.stub.ListTools(protos.ListToolsRequest())).get("tools", [])
    return {tool["name"]: tool for tool in tools}


def described(rig: Rig) -> str:
    """Settings of a tool whose definition has numbers and keys of all kinds."""
    size = {"type": "integer", "minimum": -9007199254740991, "maximum": 12345678901, "description": "how much"}
    some = {"type": "array", "items": {"type": "number", "multipleOf": 0.25}, "maxItems": 100}
    path = rig.folder / "large.json"
    path.write_text(json.dumps({"type": "object", "properties": {"size": size, "some": some}, "required": ["size"]}))
    return f'description = "Makes a large file"\ninput_schema_file = "{path}"'


def same_prompt(rig: Rig, peer: str) -> None:
    """Definitions are the same text whenever a model gets them: providers cache prompts."""
    fanfare = rig.fanfare(rig.tool(peer), get_weather="", **{'"large.file"': described(rig)})

    def ask_twice(language: str) -> None:
        said = [run(command(language, fanfare), env=ENVIRONMENT).stdout for _ in range(2)]
        # As the text had them: dictionaries keep their order.
        assert len({json.dumps(json.loads(text)["tools"]) for text in said}) == 1, (language, said)
        assert re.search(r'"maximum": ?12345678901[,}]', said[0]), (language, said[0])

    all_at_once(rig, ask_twice)


def all_at_once(rig: Rig, work) -> None:
    """`work(language)` for each that this machine has."""
    languages = [*filter(rig.available, AGENTS)]
    at_once(len(languages), lambda i: work(languages[i]))


def one_turn(rig: Rig, language: str, fanfare: Fanfare) -> None:
    asked = TURN if AGENTS[language][0] == "anthropic" else [*TURN, BROKEN]
    answers, progress = turn(language, fanfare, write_answer(rig, language, asked))
    assert [each for each, _ in answers] == [each for each, *_ in asked], (language, answers)
    told = dict(answers)
    for id, _, _, expected in asked:
        assert expected in (None, told[id]), (language, id, told[id])
    assert told["hangs"]["retryable"] is False and "timeout" in told["hangs"]["error"], (language, told["hangs"])
    fields = [wrong["field"] for wrong in told["digits"]["violations"]]
    assert fields == ["arguments.id", "arguments.of[0]"], (language, told["digits"])
    assert "did you mean echo?" in told["unknown"]["error"], (language, told["unknown"])
    assert "error" in told.get("broken", {"error": ""}), (language, told["broken"])
    # Each as it ended: the one that hangs last.
    ended = re.findall("|".join(id for id, *_ in asked), progress)
    assert sorted(ended) == sorted(told) and ended[-2:] == ["sleeps", "hangs"], (language, progress)


def write_answer(rig: Rig, language: str, calls: list):
    """A file with the model's answer, but with these calls."""
    provider = AGENTS[language][0]
    recorded = json.loads((ROOT / f"tests/clients/answers/{provider}.json").read_text())
    PROVIDERS[provider].ask(recorded, calls)
    path = rig.folder / f"{language}.json"
    path.write_text(json.dumps(recorded))
    return path


def turn(language: str, fanfare: Fanfare, recorded) -> tuple[list, str]:
    """What the model is told of each call, by its id; and what is on the terminal meanwhile."""
    provider, program = AGENTS[language]
    done = run([*program, f"127.0.0.1:{fanfare.port}", recorded], env=ENVIRONMENT)
    assert done.returncode == 0, (language, done)
    # Whole numbers have no point.
    assert not re.search(r"\d\.0\b|\dE[+\d]", done.stdout), (language, done.stdout)
    asked = json.loads(done.stdout)
    listed = fanfare.stub.ListTools(protos.ListToolsRequest(format=f"TOOL_FORMAT_{provider.upper()}"))
    definitions = json_format.MessageToDict(listed)["definitions"]
    assert asked["tools"] == definitions, (language, asked["tools"], definitions)
    with open(recorded) as file:
        answer = json.load(file)
    if models.available():
        models.accept(provider, asked, answer)
    return PROVIDERS[provider].answered(asked, answer), done.stderr


def refused(rig: Rig, peer: str) -> None:
    """What is refused for want of room is sent again."""
    fanfare = full_fanfare(rig)
    agent = subprocess.Popen(command(peer, fanfare), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    rig.processes.says(fanfare.name, lambda log: log.count("RESOURCE_EXHAUSTED") > 2)
    fanfare.running.cancel()
    answered, said = agent.communicate(timeout=LIMIT)
    assert agent.returncode == 0 and b"call_3" in answered, said


def lost(rig: Rig, peer: str) -> None:
    """What was lost with its connection is not sent again, as tools may have run."""
    port = rig.tool(peer)
    fanfare, ran = rig.fanfare(port, sleep=""), lambda: rig.ask(port, "calls").get("sleep", 0)
    before, agents = ran(), {}
    for language in filter(rig.available, AGENTS):
        path = write_answer(rig, language, [("call", "sleep", '{"seconds": 60}', None)])
        program = [*AGENTS[language][1], f"127.0.0.1:{fanfare.port}", path]
        rig.processes.start(f"caller-{language}", program, env=ENVIRONMENT)
        agents[language] = rig.processes.running[f"caller-{language}"]
    wait_for("call of each", lambda: ran() == before + len(agents))
    fanfare.process.kill()
    fanfare.process.wait()
    rig.processes.start("fanfare-again", [FANFARE, "serve", "--config", rig.folder / f"{fanfare.name}.toml"], f":{fanfare.port}")
    for language, agent in agents.items():
        code, said = agent.wait(timeout=LIMIT), rig.processes.output(f"caller-{language}")
        assert code != 0 and "UNAVAILABLE" in said.upper() and '"messages"' not in said, (language, code, said)
    assert ran() == before + len(agents), "calls were sent again"


def out_of_time(rig: Rig, peer: str) -> None:
    """No agent goes on beyond its deadline, however often it is told to try again."""
    fanfare = full_fanfare(rig)

    def try_in_vain(language: str) -> None:
        begun = time.monotonic()
        done = run(command(language, fanfare), env=ENVIRONMENT)
        taken = time.monotonic() - begun
        said = done.stderr.upper().replace("_", "").replace(" ", "")
        assert done.returncode != 0 and not done.stdout and "DEADLINEEXCEEDED" in said, (language, done)
        assert taken > SECONDS - 1, (language, taken)

    all_at_once(rig, try_in_vain)
    # Each waits as long as it is asked to, half a second.
    refused = r'^rpc_server_call_duration_seconds_count\{.*StreamExecuteTools.*"RESOURCE_EXHAUSTED".*\} (\d+)$'
    (tries,) = map(int, re.findall(refused, fanfare.page, re.M))
    most = sum(map(rig.available, AGENTS)) * (2 * SECONDS + 1)
    assert tries <= most, (tries, most)


def full_fanfare(rig: Rig) -> Fanfare:
    """It lists its tools, and has no room for three calls."""
    limits = "[limits]\nmax_calls_per_request = 3\nmax_in_flight_calls = 3"
    port = rig.tool("python")
    asleep = lambda: rig.ask(port, "calls").get("sleep", 0)
    fanfare, before = rig.fanfare(port, server=limits, get_weather="", sleep=""), asleep()
    fanfare.running = fanfare.stub.ExecuteTools.future(request(calls("sleep", seconds=60)))
    while asleep() == before:
        assert not fanfare.running.done(), fanfare.running
    return fanfare


def command(language: str, fanfare: Fanfare) -> list:
    provider, program = AGENTS[language]
    return [*program, f"127.0.0.1:{fanfare.port}", f"{ROOT}/tests/clients/answers/{provider}.json"]


def gemini(rig: Rig, peer: str) -> None:
    """What README says of a model without an agent here, in the words of its library."""
    if not models.available():
        return
    types = models.gemini()
    fanfare = rig.fanfare(rig.tool(peer), echo="", fail="", **{'"large.file"': described(rig)})
    listed = fanfare.stub.ListTools(protos.ListToolsRequest(format="TOOL_FORMAT_GEMINI"))
    definitions = json_format.MessageToDict(listed)["definitions"]
    types.Tool.model_validate({"functionDeclarations": definitions})
    parts = [{"functionCall": {"name": name, "args": json.loads(text)}} for _, name, text, _ in (TURN[3], TURN[1])]
    content = types.Content.model_validate({"role": "model", "parts": parts})
    asked = [part.function_call for part in content.parts]
    results = fanfare.execute([{"name": call.name, "argumentsJson": json.dumps(call.args)} for call in asked])
    responses = [{"error": r["error"]["message"]} if "error" in r else {"output": r["observation"]} for r in results]
    parts = [{"functionResponse": {"name": c.name, "response": r}} for c, r in zip(asked, responses, strict=True)]
    types.Content.model_validate({"role": "user", "parts": parts})
    assert responses == [{"error": "no such city"}, {"output": TURN[1][3]}], responses


class OpenAiChat:
    @staticmethod
    def ask(recorded: dict, turn: list) -> None:
        """Puts these calls into the model's answer."""
        recorded["choices"][0]["message"]["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": text}} for id, name, text, _ in turn
        ]

    @staticmethod
    def answered(asked: dict, recorded: dict) -> list:
        """What it is told in the next request, by the id of the call."""
        user, answer, *tools = asked["messages"]
        assert user["role"] == "user" and answer == recorded["choices"][0]["message"], asked
        assert all(tool.keys() == {"role", "tool_call_id", "content"} and tool["role"] == "tool" for tool in tools), tools
        return [(tool["tool_call_id"], json.loads(tool["content"])) for tool in tools]


class OpenAiResponses:
    @staticmethod
    def ask(recorded: dict, turn: list) -> None:
        recorded["output"][1:] = [
            {"id": f"fc_{id}", "type": "function_call", "status": "completed", "call_id": id, "name": name, "arguments": text}
            for id, name, text, _ in turn
        ]

    @staticmethod
    def answered(asked: dict, recorded: dict) -> list:
        user, answer = asked["input"][0], asked["input"][1 : len(recorded["output"]) + 1]
        outputs = asked["input"][len(recorded["output"]) + 1 :]
        assert user["role"] == "user" and answer == recorded["output"], asked
        assert all(o.keys() == {"type", "call_id", "output"} and o["type"] == "function_call_output" for o in outputs), outputs
        return [(output["call_id"], json.loads(output["output"])) for output in outputs]


class Anthropic:
    @staticmethod
    def ask(recorded: dict, turn: list) -> None:
        recorded["content"][1:] = [
            {"type": "tool_use", "id": id, "name": name, "input": json.loads(text)} for id, name, text, _ in turn
        ]

    @staticmethod
    def answered(asked: dict, recorded: dict) -> list:
        # The results are in one message, with nothing before them.
        user, answer, results = asked["messages"]
        assert user["role"] == "user" and answer == {"role": "assistant", "content": recorded["content"]}, asked
        assert results["role"] == "user", results
        told = []
        for block in results["content"]:
            assert block.keys() == {"type", "tool_use_id", "content", "is_error"} and block["type"] == "tool_result", block
            told.append((block["tool_use_id"], json.loads(block["content"])))
            assert block["is_error"] is ("error" in told[-1][1]), block
        return told


PROVIDERS = {"openai_chat": OpenAiChat, "openai_responses": OpenAiResponses, "anthropic": Anthropic}
