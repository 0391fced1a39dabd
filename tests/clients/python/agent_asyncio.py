"""One turn of an agent on Anthropic's Messages, with asyncio: `agent_asyncio.py FANFARE ANSWER`."""

import asyncio
import json
import sys
import time

import grpc
from fanfare.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from fanfare.v1.types_pb2 import ToolCall
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status


async def ask_model(request):
    """Here the model is asked: `(await AsyncAnthropic().messages.create(**request)).to_dict()`."""
    with open(sys.argv[2]) as answer:
        return json.load(answer)


def plain(message):
    """A `Struct` or `Value` as JSON: always in the same order, as prompts are cached; 3.0 is 3."""
    number = lambda text: int(float(text)) if float(text).is_integer() else float(text)
    return json.loads(MessageToJson(message, sort_keys=True), parse_float=number)


def detail(status, kind):
    """The first detail of this kind that an error has, or an empty one."""
    found = kind()
    any(each.Unpack(found) for each in status.details)
    return found


def content(result):
    """What the model gets to read: the observation, or what is wrong and whether to try again."""
    if not result.HasField("error"):
        return json.dumps(plain(result.observation))
    retryable = detail(result.error, ErrorInfo).metadata["retryable"] == "true"
    failure = {"error": result.error.message, "retryable": retryable}
    if wrong := detail(result.error, BadRequest).field_violations:
        failure["violations"] = [*map(MessageToDict, wrong)]
    return json.dumps(failure)


async def run_tools(fanfare, calls, seconds):
    """The results, in the order of the calls. If this task is cancelled, so are the calls."""
    request, deadline = orchestrator_pb2.ExecuteToolsRequest(calls=calls), time.monotonic() + seconds
    while True:
        try:
            async for event in fanfare.StreamExecuteTools(request, timeout=deadline - time.monotonic()):
                if event.HasField("completion"):
                    done, taken = event.completion, event.completion.duration.ToTimedelta().total_seconds()
                    print(f"{taken:.2f} s", done.id, done.name, done.error.message or "ok", file=sys.stderr)
            return event.aggregate.results
        except grpc.RpcError as error:
            status = Status.FromString(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
            # Otherwise tools may have run, as when Fanfare says nothing: then a connection was lost.
            if detail(status, ErrorInfo).metadata["retryable"] != "true":
                raise
            await asyncio.sleep(detail(status, RetryInfo).retry_delay.ToTimedelta().total_seconds() or 0.1)


async def main():
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        fanfare = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        tools = await fanfare.ListTools(orchestrator_pb2.ListToolsRequest(format="TOOL_FORMAT_ANTHROPIC"))
        request = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "tools": [*map(plain, tools.definitions)]}
        request["messages"] = messages = [{"role": "user", "content": "How is the weather in Oslo and Bern?"}]
        answer = (await ask_model(request))["content"]
        uses = [each for each in answer if each["type"] == "tool_use"]
        calls = [ToolCall(id=u["id"], name=u["name"], arguments_json=json.dumps(u["input"])) for u in uses]
        blocks = [{"type": "tool_result", "tool_use_id": call.id} for call in calls]
        for block, result in zip(blocks, await run_tools(fanfare, calls, seconds=10), strict=True):
            block |= {"content": content(result), "is_error": result.HasField("error")}
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": blocks}]
        print(json.dumps(request))  # what the model is asked next


asyncio.run(main())
