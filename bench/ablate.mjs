// What the causal check costs, in clean forward passes of the same prompts: npm run bench:ablate
// A model of GPT-2 small's shape (random weights, written once); 144 heads, biases, 12 MLPs and both embeddings, zeroed one at a
// time. The results of some components are compared with those of a general library's operations first, one prompt at a time.
import { strict as assert } from 'node:assert'
import { availableParallelism } from 'node:os'
import { Bench } from 'tinybench'
import { Model } from '../dist/index.js'
import { D_VOCAB, random, writeModel } from './peers/model.mjs'

const TARGET = { answer: 11, against: 13 }
const THREADS = 2

const draw = random(11)
const batch = (n, length) => Array.from({ length: n }, () => Array.from({ length }, () => Math.floor(draw() * D_VOCAB)))

const directory = writeModel()
const model = await Model.load(directory, { threads: THREADS })
// no biases: they are columns of attention, not heads or MLPs
const each = (n, of) => Array.from({ length: n }, (_, i) => of(i))
const components = ['embed', 'pos_embed', ...each(12, (l) => [...each(12, (h) => `L${l}H${h}`), `L${l} mlp`]).flat()]
const shapes = [
  [batch(32, 16), 'row'],
  [batch(8, 128), 'row'],
  [batch(4, 16), 'all'],
]

{
  const plain = await Model.load(directory, { threads: THREADS, kernels: 'plain' })
  const some = ['embed', 'L5H11', 'L5 mlp', 'L11H0']
  const [prompts] = shapes[0]
  for (const ablateAt of ['row', 'all']) {
    const few = prompts.slice(0, 2)
    const all = await model.ablate(ablateAt === 'row' ? prompts : few, TARGET, { components, ablateAt })
    assert.ok(all.certified)
    const alone = await plain.ablate(few.slice(1), TARGET, { components: some, ablateAt })
    for (const label of some) {
      const [a, b] = [all.row(1).get(label), alone.row(0).get(label)]
      assert.ok(Math.abs(a.total - b.total) <= a.tolerance, `${label}: ${a.total}, expected ${b.total}`)
      assert.ok(Math.abs(a.direct - b.direct) <= a.tolerance, `${label}: ${a.direct}, expected ${b.direct}`)
    }
  }
  await plain.close()
}

const bench = new Bench({ time: 500, iterations: 3, warmupTime: 100, warmupIterations: 1 })
for (const [prompts, ablateAt] of shapes) {
  const shape = `${prompts.length} × ${prompts[0].length}`
  bench.add(`clean, ${shape}`, () => model.run(prompts, { logits: 'last' }).then((run) => run.close()))
  bench.add(`ablate at ${ablateAt}, ${shape}`, () => model.ablate(prompts, TARGET, { components, ablateAt }))
}
await bench.run()
await model.close()

const ms = Object.fromEntries(bench.tasks.map(({ name, result }) => [name, result.latency.min]))
console.log(
  `GPT-2 small's shape, ${THREADS} of ${availableParallelism()} threads, Node ${process.version}; every output was checked first`,
)
console.table(
  shapes.map(([prompts, ablateAt]) => {
    const shape = `${prompts.length} × ${prompts[0].length}`
    const [clean, ablate] = [ms[`clean, ${shape}`], ms[`ablate at ${ablateAt}, ${shape}`]]
    const ratio = (ablate - clean) / clean
    return {
      prompts: shape,
      'replaced at': ablateAt,
      'clean ms': clean.toFixed(1),
      'ablate ms': ablate.toFixed(1),
      '(ablate − clean) / clean': ratio.toFixed(2),
      'of as many full passes': (ratio / components.length).toFixed(3),
    }
  }),
)
