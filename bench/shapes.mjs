// What each kind of call costs on a model of GPT-2 small's shape (random weights, written once): npm run bench:shapes
// Every output is checked before anything is timed. The forward pass alone is a run that keeps nothing but the logits.
import { strict as assert } from 'node:assert'
import { availableParallelism } from 'node:os'
import { Bench } from 'tinybench'
import { Model } from '../dist/index.js'
import { D_VOCAB, random, writeModel } from './peers/model.mjs'

const TARGET = { answer: 11, against: 13 }
const THREADS = 2

const draw = random(11)
const tokens = (n) => Array.from({ length: n }, () => Math.floor(draw() * D_VOCAB))
const batch = (n, length) => Array.from({ length: n }, () => tokens(length))

const prefix = tokens(200)
const model = await Model.load(writeModel(), { threads: THREADS })
const { dModel } = model.config
const short = batch(32, 16)
const sharing = Array.from({ length: 64 }, () => [...prefix, ...tokens(16)])
const directions = Float32Array.from({ length: 1000 * dModel }, () => draw() - 0.5)

const calls = {
  'forward pass, 32 × 16': () => model.run(short, { logits: 'none', position: 'last' }).then((run) => run.close()),
  'attribute, layers': () => model.attribute(short, TARGET, { unit: 'layer' }),
  'attribute, heads': () => model.attribute(short, TARGET),
  'attribute, neurons': () => model.attribute(short, TARGET, { unit: 'neuron' }),
  'attribute, neurons, top 10': () => model.attribute(short, TARGET, { unit: 'neuron', top: 10 }),
  'attribute, heads, every position': () => model.attribute(short, TARGET, { position: 'all' }),
  '1,000 directions': () => model.attributeDirections(short, directions),
  'sources, all heads': () => model.attributeSources(short, TARGET),
  'lens, top 5': () => model.logitLens(short, { targets: TARGET, top: 5 }),
  'attribute, heads, 64 × 216, 200 shared': () => model.attribute(sharing, TARGET),
}

// the numbers first: certified everywhere, units that add up, shared prefixes as if there were none
const [layers, heads, neurons] = [
  await calls['attribute, layers'](),
  await calls['attribute, heads'](),
  await calls['attribute, neurons'](),
]
for (const result of [layers, heads, neurons]) assert.ok(result.certified)
heads.total.forEach((total, i) => assert.ok(Math.abs(total - neurons.total[i]) < 1e-3 && Math.abs(total - layers.total[i]) < 1e-3))
assert.ok((await calls['1,000 directions']()).certified)
const together = await calls['attribute, heads, 64 × 216, 200 shared']()
for (const i of [1, 40, 63]) {
  const alone = (await model.attribute([sharing[i]], TARGET)).row(0)
  const row = together.row(i)
  row.values.forEach((value, c) => assert.ok(Math.abs(value - alone.values[c]) <= row.tolerance, `prompt ${i}, component ${c}`))
}

const bench = new Bench({ time: 2000, iterations: 5, warmupTime: 300, warmupIterations: 1 })
for (const [name, run] of Object.entries(calls)) bench.add(name, run)
await bench.run()
await model.close()

const forward = bench.tasks[0].result.latency.min
console.log(
  `GPT-2 small's shape, ${THREADS} of ${availableParallelism()} threads, Node ${process.version}; every output was checked first`,
)
console.table(
  bench.tasks.map(({ name, result }) => ({
    task: name,
    'min ms': result.latency.min.toFixed(1),
    'median ms': result.latency.p50.toFixed(1),
    'of the forward pass': (result.latency.min / forward).toFixed(2),
    samples: result.latency.samplesCount,
  })),
)
