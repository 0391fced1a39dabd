// A tool service and a caller on grpc-js: `peer.js INCLUDE:... tool PORT`,
// `peer.js INCLUDE:... call TARGET`. Orders and answers are those of `peer.go`.
'use strict'
const readline = require('node:readline')
const grpc = require('@grpc/grpc-js')
const loader = require('@grpc/proto-loader')
const health = require('grpc-health-check')

const [includes, role, where] = process.argv.slice(2)
const contract = ['fanfare/v1/orchestrator.proto', 'fanfare/v1/tool.proto']
const definitions = loader.loadSync([...contract, health.protoPath], {
  includeDirs: includes.split(':'),
})

// google.protobuf.Value and Struct, which proto-loader leaves as they are.
function toValue(json) {
  if (json === null) return { nullValue: 0 }
  if (typeof json === 'number') return { numberValue: json }
  if (typeof json === 'string') return { stringValue: json }
  if (typeof json === 'boolean') return { boolValue: json }
  if (Array.isArray(json)) return { listValue: { values: json.map(toValue) } }
  const fields = Object.entries(json).map(([name, value]) => [name, toValue(value)])
  return { structValue: { fields: Object.fromEntries(fields) } }
}

function fromStruct(struct) {
  const fields = Object.entries(struct?.fields ?? {})
  return Object.fromEntries(fields.map(([name, value]) => [name, value[value.kind ?? Object.keys(value)[0]]]))
}

const calls = {}
const tools = {
  echo: (call, done) => done(null, { structValue: call.request.arguments ?? { fields: {} } }),
  sleep: (call, done, { seconds }) => {
    const timer = setTimeout(() => done(null, toValue(seconds)), seconds * 1000)
    call.on('cancelled', () => clearTimeout(timer))
  },
  fail: (call, done, { code }) => done({ code, details: 'as requested' }),
  calls: (call, done) => done(null, toValue(calls)),
}

function callTool(call, done) {
  const { name } = call.request
  calls[name] = (calls[name] ?? 0) + 1
  const answer = (error, observation) => done(error, { observation })
  const unknown = () => done({ code: grpc.status.UNIMPLEMENTED, details: name })
  ;(tools[name] ?? unknown)(call, answer, fromStruct(call.request.arguments))
}

function serve(port) {
  const server = new grpc.Server()
  server.addService(definitions['fanfare.v1.ToolService'], { CallTool: callTool })
  server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error
    console.log('listening')
  })
}

function makeCall(client, order) {
  const [, service, name] = order.method.split('/')
  const method = definitions[service][name]
  const metadata = new grpc.Metadata()
  for (const [key, value] of Object.entries(order.metadata ?? {})) metadata.set(key, value)
  if (order.gzip) metadata.set('grpc-internal-encoding-request', 'gzip')
  return new Promise((resolve) => {
    const options = { deadline: Date.now() + order.timeout * 1000 }
    const answer = (error, response) =>
      resolve({ code: error?.code ?? 0, message: error?.details ?? '', response })
    const codecs = [method.path, method.requestSerialize, method.responseDeserialize]
    const stream = client.makeClientStreamRequest(...codecs, metadata, options, answer)
    for (const request of order.requests) stream.write(nodeRequest(request))
    stream.end()
  })
}

// A call's arguments as proto-loader wants them.
function nodeRequest(request) {
  const calls = request.calls?.map((call) => ({
    ...call,
    arguments: call.arguments && toValue(call.arguments).structValue,
  }))
  return { ...request, calls }
}

async function makeCalls(target) {
  const options = { 'grpc.default_compression_algorithm': 2 }
  const plain = new grpc.Client(target, grpc.credentials.createInsecure())
  const zipped = new grpc.Client(target, grpc.credentials.createInsecure(), options)
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line)
    console.log(JSON.stringify(await makeCall(order.gzip ? zipped : plain, order)))
  }
  process.exit()
}

role === 'tool' ? serve(where) : makeCalls(where)
