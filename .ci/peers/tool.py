"""A tool service on grpcio, with reflection: `tool.py tool PORT [gzip]`."""

import collections
import concurrent.futures
import math
import sys
import threading

import grpc
from google.protobuf import json_format
from grpc_reflection.v1alpha import reflection

protos, services = grpc.protos_and_services("fanfare/v1/tool.proto")
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Tools(services.ToolServiceServicer):
    def __init__(self):
        self.lock, self.calls = threading.Lock(), collections.Counter()

    def CallTool(self, request, context):
        name = request.name
        arguments = json_format.MessageToDict(request.arguments)
        with self.lock:
            self.calls[name] += 1
        answer = protos.CallToolResponse()
        match name:
            case "echo":
                answer.observation.struct_value.CopyFrom(request.arguments)
            case "sleep":
                gone = threading.Event()
                if context.add_callback(gone.set):
                    gone.wait(arguments["seconds"])
                answer.observation.number_value = arguments["seconds"]
            case "fail":
                if "pushback" in arguments:
                    pushback = str(int(arguments["pushback"]))
                    context.set_trailing_metadata([("grpc-retry-pushback-ms", pushback)])
                context.abort(CODES[arguments["code"]], "as requested")
            case "calls":
                json_format.ParseDict(dict(self.calls), answer.observation.struct_value)
            case "payload":
                answer.observation.string_value = "x" * int(arguments["bytes"])
            case "nan":
                answer.observation.list_value.values.add().number_value = math.nan
            case "nothing":
                answer.observation.list_value.values.add()
            case name if name != "absent":
                context.abort(grpc.StatusCode.UNIMPLEMENTED, name)
        return answer


if __name__ == "__main__":
    _, port, *flags = sys.argv[1:]
    compression = grpc.Compression.Gzip if "gzip" in flags else None
    workers = concurrent.futures.ThreadPoolExecutor(max_workers=300)
    server = grpc.server(workers, compression=compression)
    services.add_ToolServiceServicer_to_server(Tools(), server)
    reflection.enable_server_reflection(["fanfare.v1.ToolService", reflection.SERVICE_NAME], server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()
