// One turn of an agent on OpenAI's Chat Completions: `agent.js FANFARE ANSWER`.
import { readFile } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { Metadata, ServiceError, credentials } from "@grpc/grpc-js";
import {
  ExecuteToolsRequest, ListToolsRequest, ListToolsResponse, OrchestratorServiceClient, ToolFormat,
} from "./gen/fanfare/v1/orchestrator";
import { ToolCall, ToolExecutionResult } from "./gen/fanfare/v1/types";
import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details";
import { Status } from "./gen/google/rpc/status";

type Message = { tool_calls: { id: string; function: { name: string; arguments: string } }[] };

/** Here the model is asked: `return new OpenAI().chat.completions.create(request)`. */
async function askModel(request: object): Promise<{ choices: { message: Message }[] }> {
  return JSON.parse(await readFile(process.argv[3]!, "utf8"));
}

/** The first detail of this kind that a failure has, or an empty one. */
function detail<T>({ details }: Status, name: string, kind: { decode(encoded: Uint8Array): T }): T {
  const found = details.find(({ typeUrl }) => typeUrl.endsWith(`/google.rpc.${name}`));
  return kind.decode(found?.value ?? new Uint8Array());
}

const retryable = (failure: Status) => detail(failure, "ErrorInfo", ErrorInfo).metadata.retryable === "true";

/** What the model gets to read of a failure: what is wrong, and whether to try again. */
function told(failure: Status) {
  const wrong = detail(failure, "BadRequest", BadRequest).fieldViolations;
  const violations = wrong.map(({ field, description }) => ({ field, description }));
  return { error: failure.message, retryable: retryable(failure), ...(wrong.length > 0 && { violations }) };
}

/** The results, in the order of the calls. */
async function runTools(calls: ToolCall[], deadline: Date): Promise<ToolExecutionResult[]> {
  const request = ExecuteToolsRequest.fromPartial({ calls });
  for (;;) {
    const results: ToolExecutionResult[] = [];
    try {
      for await (const { completion, aggregate } of client.streamExecuteTools(request, new Metadata(), { deadline })) {
        if (completion) console.error(completion.id, completion.name, completion.error?.message ?? "ok");
        results.push(...(aggregate?.results ?? []));
      }
      return results;
    } catch (error) {
      const [encoded] = (error as ServiceError).metadata?.get("grpc-status-details-bin") ?? [];
      const failure = Status.decode((encoded as Buffer) ?? Buffer.of());
      // Otherwise tools may have run, as when Fanfare says nothing: then a connection was lost.
      if (!retryable(failure)) throw error;
      const { seconds = 0, nanos = 0 } = detail(failure, "RetryInfo", RetryInfo).retryDelay ?? {};
      await setTimeout(Math.max(seconds * 1000 + nanos / 1e6, 100));
    }
  }
}

async function turn(deadline: Date) {
  const list = ListToolsRequest.fromPartial({ format: ToolFormat.TOOL_FORMAT_OPENAI_CHAT });
  const { definitions: tools } = await new Promise<ListToolsResponse>((resolve, reject) =>
    client.listTools(list, new Metadata(), { deadline }, (error, tools) => (error ? reject(error) : resolve(tools))),
  );
  const messages: object[] = [{ role: "user", content: "How is the weather in Oslo and Bern?" }];
  const request = { model: "gpt-5.1", tools, messages };
  const { message } = (await askModel(request)).choices[0]!;
  const calls = message.tool_calls.map(({ id, function: { name, arguments: argumentsJson } }) =>
    ToolCall.fromPartial({ id, name, argumentsJson }),
  );
  messages.push(message);
  for (const { id, error, observation } of await runTools(calls, deadline)) {
    messages.push({ role: "tool", tool_call_id: id, content: JSON.stringify(error ? told(error) : observation) });
  }
  console.log(JSON.stringify(request)); // what the model is asked next
}

const client = new OrchestratorServiceClient(process.argv[2]!, credentials.createInsecure());
turn(new Date(Date.now() + 10_000)).finally(() => client.close());
