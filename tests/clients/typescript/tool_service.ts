import { setTimeout } from "node:timers/promises";
import { Server, ServerCredentials, handleUnaryCall, status } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { ListToolsRequest, ListToolsResponse } from "./gen/fanfare/v1/orchestrator";
import { CallToolRequest, CallToolResponse, ToolServiceService } from "./gen/fanfare/v1/tool";

type Tool = (args: Record<string, any>, signal: AbortSignal) => Promise<unknown>;

const tools: Record<string, Tool | undefined> = {
  async get_weather({ city }, signal) {
    if (!city) throw { code: status.INVALID_ARGUMENT, details: "city: must not be empty" };
    await setTimeout(100, undefined, { signal }); // ask a weather service here
    return { city, celsius: 21.5 };
  },
};

const city = { type: "string", minLength: 1, description: "such as Oslo" };
const descriptions = ListToolsResponse.fromPartial({
  tools: [
    {
      name: "get_weather",
      description: "Current weather of a city",
      idempotent: true,
      inputSchema: { type: "object", properties: { city }, required: ["city"] },
    },
  ],
});
const listTools: handleUnaryCall<ListToolsRequest, ListToolsResponse> = (_, answer) => answer(null, descriptions);

const callTool: handleUnaryCall<CallToolRequest, CallToolResponse> = (call, answer) => {
  const { name, arguments: args } = call.request;
  const tool = tools[name];
  if (!tool) return answer({ code: status.UNIMPLEMENTED, details: `no tool ${name}` });
  // When the deadline is over, or nobody waits any more.
  const gone = new AbortController();
  call.on("cancelled", () => gone.abort());
  tool(args ?? {}, gone.signal).then((observation) => answer(null, { observation }), answer);
};

const server = new Server();
const health = new HealthImplementation({ "": "SERVING" });
server.addService(ToolServiceService, { callTool, listTools });
health.addToServer(server);
server.bindAsync(process.argv[2]!, ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
process.on("SIGTERM", () => {
  health.setStatus("", "NOT_SERVING");
  server.tryShutdown(() => process.exit()); // takes nothing new; what runs may end
});
