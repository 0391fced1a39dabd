import json
import sys
import time

import grpc
from fanfare.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2


def error_info(status):
    """What Fanfare says of an error; empty if it is not Fanfare's."""
    info = error_details_pb2.ErrorInfo()
    if status.details:
        status.details[0].Unpack(info)
    return info


def may_be_sent_again(error):
    """Without an `ErrorInfo` the connection was lost, and tools may have run."""
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata.get("grpc-status-details-bin", b""))
    return error_info(status).metadata["retryable"] == "true"


def message(result):
    """What the model gets to read."""
    if result.HasField("error"):
        content = {"error": result.error.message, "reason": error_info(result.error).reason}
    else:
        content = MessageToDict(result.observation)
    return {"role": "tool", "tool_call_id": result.id, "content": json.dumps(content)}


def run_tools(stub, calls, seconds):
    """The calls of one turn; their results, in the order of the calls."""
    request = ParseDict({"calls": calls}, orchestrator_pb2.ExecuteToolsRequest())
    deadline = time.monotonic() + seconds
    while True:
        try:
            for event in stub.StreamExecuteTools(request, timeout=deadline - time.monotonic()):
                if event.HasField("completion"):
                    print("ended:", event.completion.id, file=sys.stderr)
            return [message(result) for result in event.aggregate.results]
        except grpc.RpcError as error:
            if not may_be_sent_again(error):
                raise
            time.sleep(0.5)  # so long a `RetryInfo` asks for


calls = [
    {"id": "call_1", "name": "get_weather", "arguments": {"city": "Oslo"}},
    {"id": "call_2", "name": "get_weather", "arguments": {}},
    {"id": "call_3", "name": "no_such_tool"},
]
with grpc.insecure_channel(sys.argv[1]) as channel:
    for answer in run_tools(orchestrator_pb2_grpc.OrchestratorServiceStub(channel), calls, 10):
        print(json.dumps(answer))
