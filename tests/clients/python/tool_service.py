import asyncio
import signal
import sys

import grpc
from fanfare.v1 import orchestrator_pb2, tool_pb2, tool_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from grpc_health.v1 import health, health_pb2_grpc


async def get_weather(arguments):
    if not arguments.get("city"):
        raise ValueError("city: must not be empty")
    await asyncio.sleep(0.1)  # ask a weather service here
    return {"city": arguments["city"], "celsius": 21.5}


TOOLS = {"get_weather": get_weather}
CITY = {"type": "string", "minLength": 1, "description": "such as Oslo"}
DESCRIPTIONS = [
    {
        "name": "get_weather",
        "description": "Current weather of a city",
        "idempotent": True,
        "inputSchema": {"type": "object", "properties": {"city": CITY}, "required": ["city"]},
    }
]


class ToolService(tool_pb2_grpc.ToolServiceServicer):
    async def ListTools(self, request, context):
        return ParseDict({"tools": DESCRIPTIONS}, orchestrator_pb2.ListToolsResponse())

    async def CallTool(self, request, context):
        if request.name not in TOOLS:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no tool {request.name}")
        try:
            # When the deadline is over, or nobody waits any more, gRPC cancels this task.
            observation = await TOOLS[request.name](MessageToDict(request.arguments))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return tool_pb2.CallToolResponse(observation=ParseDict(observation, Value()))


async def main(address="127.0.0.1:50061"):
    server, healthy = grpc.aio.server(), health.aio.HealthServicer()
    tool_pb2_grpc.add_ToolServiceServicer_to_server(ToolService(), server)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_insecure_port(address)
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await healthy.enter_graceful_shutdown()
    await server.stop(grace=25)  # takes nothing new; what runs may end


asyncio.run(main(*sys.argv[1:]))
