"""Definitions of tools for models, of difficult tools too: what the providers' libraries say."""

import importlib
import json

from google.protobuf import json_format

import every
import models
from methods import source
from rig import FANFARE, ROOT, Fanfare, Rig, protos, run, wait_for

# A format's number in the contract, where its schemas are, and the rest of a request to its provider.
FORMATS = {
    "openai": (1, "function/parameters", "openai_chat", {"messages": [{"role": "user", "content": "?"}]}),
    "openai-responses": (2, "parameters", "openai_responses", {"input": "?"}),
    "anthropic": (3, "input_schema", "anthropic", {"max_tokens": 1, "messages": [{"role": "user", "content": "?"}]}),
    "gemini": (4, "parametersJsonSchema", None, {}),
    "mcp": (5, "inputSchema", None, {}),
}
# Arguments can't be checked by the schemas of these: it refers to another one, elsewhere; it is of an
# older draft. Such tools are left out. Their definitions are in the files.
UNUSABLE = {"itself", "lists"}
# What providers refuse at the root.
COMPOSED = {"$ref", "$schema", "allOf", "anyOf", "const", "enum", "if", "not", "oneOf"}


def definitions(rig: Rig, format: str) -> None:
    """The provider's own types take all of them in one request, and their schemas are such."""
    if not models.available():
        return
    # What a service tells of its tools.
    fanfare = rig.fanfare(rig.tool("tonic"), service='expose = ["*"]')
    accepted(format, wait_for("tools", lambda: listed(fanfare, format)))
    fanfare = difficult_fanfare(rig)
    found = listed(fanfare, format)
    assert len(found) == len(difficult()) + 1 - len(UNUSABLE), found
    accepted(format, found)
    # Those of the files have titles and output schemas, too.
    accepted(format, json.loads((ROOT / f"tests/it/formats/{format}.json").read_text()))
    listed_by_grpc(fanfare, format, found)
    # Methods whose messages have every kind of field: nobody has to be there to describe them.
    fanfare = rig.serve(source(9, f'descriptors = "{every.compiled(rig.folder)}"'))
    methods = wait_for("methods", lambda: listed(fanfare, format))
    assert len(methods) == 2 * len(every.SYNTAXES), methods
    accepted(format, methods)
    listed_by_grpc(fanfare, format, methods)


def listed_by_grpc(fanfare: Fanfare, format: str, wanted: list) -> None:
    """As gRPC clients have them, if their library decodes so deep a message."""
    answer = fanfare.stub.ListTools(protos.ListToolsRequest(format=FORMATS[format][0]))
    assert json_format.MessageToDict(answer)["definitions"] == wanted


def listed(fanfare: Fanfare, format: str) -> list:
    done = run([FANFARE, "tools", "--format", format, "--addr", f"127.0.0.1:{fanfare.port}"])
    assert done.returncode == 0 and not done.stderr, done
    return json.loads(done.stdout)


def accepted(format: str, tools: list) -> None:
    _, place, provider, request = FORMATS[format]
    if provider:
        kind, _ = models.types(provider)
        models.consume(kind.validate_python({"model": "m", **request, "tools": tools}))
    elif format == "gemini":
        models.gemini().Tool.model_validate({"functionDeclarations": tools})
    validator = importlib.import_module("jsonschema").Draft202012Validator
    for definition in tools:
        schema = definition
        for key in place.split("/"):
            schema = schema[key]
        assert schema["type"] == "object" and isinstance(schema["properties"], dict), definition
        assert not schema.keys() & COMPOSED, definition
        for each in filter(None, (schema, definition.get("outputSchema"))):
            validator.check_schema(each)
            # References lead somewhere.
            for _ in validator(each).iter_errors({key: {} for key in each.get("properties", ())}):
                pass


def difficult() -> list:
    return json.loads((ROOT / "tests/it/formats/tools.json").read_text())


def difficult_fanfare(rig: Rig) -> Fanfare:
    tools = {"echo": ""}
    for index, tool in enumerate(difficult()):
        text = json.dumps(tool.get("description", ""), ensure_ascii=False)
        tools[f'"{tool["name"]}"'] = f"description = {text}\n"
        if schema := tool.get("input_schema"):
            path = rig.folder / f"difficult{index}.json"
            path.write_text(json.dumps(schema))
            tools[f'"{tool["name"]}"'] += f'input_schema_file = "{path}"\n'
    return rig.fanfare(rig.tool("tonic"), **tools)
