import { setTimeout } from "node:timers/promises";
import { Metadata, ServiceError, credentials } from "@grpc/grpc-js";
import { ExecuteToolsRequest, OrchestratorServiceClient } from "./gen/fanfare/v1/orchestrator";
import { ToolExecutionResult } from "./gen/fanfare/v1/types";
import { ErrorInfo } from "./gen/google/rpc/error_details";
import { Status } from "./gen/google/rpc/status";

/** What Fanfare says of an error; empty if it is not Fanfare's: then tools may have run. */
function errorInfo(error?: Status): ErrorInfo {
  return ErrorInfo.decode(error?.details[0]?.value ?? new Uint8Array());
}

function mayBeSentAgain(error: ServiceError): boolean {
  const [details] = error.metadata.get("grpc-status-details-bin");
  return errorInfo(details ? Status.decode(details as Buffer) : undefined).metadata.retryable === "true";
}

/** What the model gets to read. */
function message({ id, error, observation }: ToolExecutionResult) {
  const content = error ? { error: error.message, reason: errorInfo(error).reason } : observation;
  return { role: "tool", tool_call_id: id, content: JSON.stringify(content) };
}

/** The calls of one turn; their results, in the order of the calls. */
async function runTools(request: ExecuteToolsRequest, seconds: number): Promise<object[]> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const results: ToolExecutionResult[] = [];
    try {
      for await (const event of client.streamExecuteTools(request, new Metadata(), { deadline })) {
        if (event.completion) console.error("ended:", event.completion.id);
        results.push(...(event.aggregate?.results ?? []));
      }
      return results.map(message);
    } catch (error) {
      if (!mayBeSentAgain(error as ServiceError)) throw error;
      await setTimeout(500); // so long a `RetryInfo` asks for
    }
  }
}

const client = new OrchestratorServiceClient(process.argv[2]!, credentials.createInsecure());
const request = ExecuteToolsRequest.fromPartial({
  calls: [
    { id: "call_1", name: "get_weather", arguments: { city: "Oslo" } },
    { id: "call_2", name: "get_weather" },
    { id: "call_3", name: "no_such_tool" },
  ],
});
runTools(request, 10).then((messages) => {
  for (const each of messages) console.log(JSON.stringify(each));
  client.close();
});
