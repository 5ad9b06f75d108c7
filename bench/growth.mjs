// How time grows with prompts, tokens, layers and directions: npm run bench:growth
// GPT-2 small's shape but for the number of layers; what is timed is head attribution at the last position. Checked first, at
// every size: each row is certified, and the last prompt gives the same alone.
import { strict as assert } from 'node:assert'
import { Bench } from 'tinybench'
import { Model } from '../dist/index.js'
import { D_VOCAB, random, writeModel } from './peers/model.mjs'
import { machine, print } from './table.mjs'

const [TARGET, THREADS] = [{ answer: 11, against: 13 }, 2]
const draw = random(17)
const batch = (n, length) => Array.from({ length: n }, () => Array.from({ length }, () => Math.floor(draw() * D_VOCAB)))

const models = {}
for (const layers of [3, 6, 12, 24]) models[layers] = await Model.load(writeModel({ layers }), { threads: THREADS })
const small = models[12]
const { dModel } = small.config

/** A size, in units, and the call of that size. */
const attributing = (units, model, prompts) => ({
  units,
  run: () => model.attribute(prompts, TARGET),
  alone: () => model.attribute(prompts.slice(-1), TARGET),
})
const probing = (count) => {
  const [prompts, directions] = [batch(32, 16), Float32Array.from({ length: count * dModel }, () => draw() - 0.5)]
  return {
    units: count,
    run: () => small.attributeDirections(prompts, directions),
    alone: () => small.attributeDirections(prompts.slice(-1), directions),
  }
}
const SERIES = {
  'prompts of 16 tokens': [1, 4, 16, 64, 256].map((n) => attributing(n, small, batch(n, 16))),
  'tokens of one prompt': [4, 16, 64, 256, 1024].map((n) => attributing(n, small, batch(1, n))),
  'layers, 32 × 16': [3, 6, 12, 24].map((n) => attributing(n, models[n], batch(32, 16))),
  'directions, 32 × 16': [1, 10, 100, 1000, 10_000].map(probing),
}

/** That it is certified, and that its last numbers are those of the last prompt alone. */
async function verify(what, { run, alone }) {
  const [all, one] = [await run(), await alone()]
  assert.ok(all.certified && one.certified, what)
  const [a, b] = [all.values.subarray(-one.values.length), one.values]
  // components of one row and direction add up to no more than this, and may be off by its part
  const size = b.reduce((sum, value) => sum + Math.abs(value), 0)
  b.forEach((value, i) => assert.ok(Math.abs(value - a[i]) <= 1e-5 * (1 + size), `${what}: ${a[i]} is not ${value}`))
}

const bench = new Bench({ time: 500, iterations: 5, warmupTime: 100, warmupIterations: 1 })
const lines = []
for (const [series, sizes] of Object.entries(SERIES)) {
  for (const size of sizes) {
    const name = `${series}: ${size.units}`
    await verify(name, size)
    bench.add(name, size.run)
    lines.push({ name, units: size.units })
  }
}
await bench.run()
for (const model of Object.values(models)) await model.close()

console.log(
  `GPT-2 small's shape, head attribution at the last position, f32, ${THREADS} threads; ${machine()}; every output was checked first`,
)
print(
  bench.tasks.map(({ name, result: { latency } }, i) => ({
    task: name,
    'min ms': latency.min.toFixed(1),
    'median ms': latency.p50.toFixed(1),
    'ms for each': (latency.min / lines[i].units).toPrecision(3),
  })),
)
