// Head attribution on the demo model, through the public API: npm run bench
// The outputs are compared with float64 figures first; only then is anything timed.
// With --profile: where the time goes, on GPT-2 small's shape (profile.mjs).
import { strict as assert } from 'node:assert'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { Bench } from 'tinybench'
import { Model } from '../dist/index.js'

if (parseArgs({ options: { profile: { type: 'boolean', default: false } } }).values.profile) {
  const { profile } = await import('./profile.mjs')
  profile()
  process.exit()
}

const PROMPT = 'When Mary and John went to the store, John gave a drink to'
const TARGET = { answer: ' Mary', against: ' John' }

const model = await Model.demo()
const figures = JSON.parse(readFileSync(new URL('../models/demo/figures.json', import.meta.url), 'utf8'))

async function verify(prompts, options) {
  const result = await model.attribute(prompts, TARGET, options)
  assert.ok(result.certified)
  const last = result.row(result.rows.prompt.length - 1)
  assert.ok(Math.abs(last.total - figures.demo.logit_difference) < 1e-4, `${last.total} is not ${figures.demo.logit_difference}`)
}

const bench = new Bench({ time: 1500, warmupTime: 200 })
for (const [n, options] of [
  [1, {}],
  [64, {}],
  [1024, {}],
  [64, { position: 'all' }],
  [1024, { unit: 'layer' }],
]) {
  const prompts = Array.from({ length: n }, () => PROMPT)
  await verify(prompts, options)
  const name = `${n} × 15 tokens, ${options.unit ?? 'head'}, ${options.position ?? 'last'}, f32, cpu`
  bench.add(name, () => model.attribute(prompts, TARGET, options))
}
await bench.run()
await model.close()

console.log(`demo model, ${availableParallelism()} threads, Node ${process.version}; every output was checked first`)
console.table(
  bench.tasks.map(({ name, result }) => ({
    task: name,
    'min ms': result.latency.min.toFixed(2),
    'median ms': result.latency.p50.toFixed(2),
    samples: result.latency.samplesCount,
  })),
)
