// A tool service with reflection and a caller on grpc-js: `peer.js tool PORT`, `peer.js call TARGET`.
// Orders and answers are those of `peer.go`. The stubs are made by ts-proto.
'use strict'
const readline = require('node:readline')
const grpc = require('@grpc/grpc-js')
const health = require('grpc-health-check')
const { loadSync } = require('@grpc/proto-loader')
const { ReflectionService } = require('@grpc/reflection')
const { OrchestratorServiceService, ExecuteToolsRequest } = require('./out/gen/fanfare/v1/orchestrator.js')
const { ToolServiceService } = require('./out/gen/fanfare/v1/tool.js')

const calls = {}
const tools = {
  echo: (call, done, given) => done(null, given ?? {}),
  sleep: (call, done, { seconds }) => {
    const timer = setTimeout(() => done(null, seconds), seconds * 1000)
    call.on('cancelled', () => clearTimeout(timer))
  },
  fail: (call, done, { code }) => done({ code, details: 'as requested' }),
  calls: (call, done) => done(null, calls),
}

function callTool(call, done) {
  const { name } = call.request
  calls[name] = (calls[name] ?? 0) + 1
  const answer = (error, observation) => done(error, { observation })
  const unknown = () => done({ code: grpc.status.UNIMPLEMENTED, details: name })
  ;(tools[name] ?? unknown)(call, answer, call.request.arguments)
}

function serve(port) {
  const server = new grpc.Server()
  server.addService(ToolServiceService, { callTool })
  const contract = loadSync('fanfare/v1/tool.proto', { includeDirs: [`${__dirname}/proto`] })
  new ReflectionService(contract).addToServer(server)
  server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error
    console.log('listening')
  })
}

function makeCall(client, order) {
  const ofHealth = order.method.includes('Health')
  const method = ofHealth ? health.service.Check : OrchestratorServiceService.executeTools
  const metadata = new grpc.Metadata()
  for (const [key, value] of Object.entries(order.metadata ?? {})) metadata.set(key, value)
  if (order.gzip) metadata.set('grpc-internal-encoding-request', 'gzip')
  return new Promise((resolve) => {
    const options = { deadline: Date.now() + order.timeout * 1000 }
    const answer = (error, response) =>
      resolve({ code: error?.code ?? 0, message: error?.details ?? '', response })
    const codecs = [order.method, method.requestSerialize, method.responseDeserialize]
    const stream = client.makeClientStreamRequest(...codecs, metadata, options, answer)
    for (const request of order.requests) stream.write(ofHealth ? request : ExecuteToolsRequest.fromJSON(request))
    stream.end()
  })
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

const [role, where] = process.argv.slice(2)
role === 'tool' ? serve(where) : makeCalls(where)
