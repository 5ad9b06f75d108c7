// Head attribution on a GPU beside the best PyTorch on the same one, alternating in one run:
//   node bench/cuda.mjs [--device cuda:0] [--dtype f32|bf16|f16] [--rounds N] [--prompts 256] [--tokens 128] [shape …]
// Shapes, of random weights: gpt2-small, gpt2-xl, llama-8b (in bf16 or f16: 16 GB), gpt2-tiny, llama-tiny. Outputs are compared
// first; only then is anything timed. PyTorch is that of $PYTHON (default python3), built for CUDA, with safetensors. The
// addon for GPUs is built by `npm run build:cuda`. With --device cpu both compute on the CPU: that tries this script out, and is
// all that has been done with it: no GPU was at hand, so nothing here is known of times on one.
import { strict as assert } from 'node:assert'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, renameSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { Model } from '../dist/index.js'
import { random } from './peers/model.mjs'

const { values, positionals } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    dtype: { type: 'string', default: 'f32' },
    rounds: { type: 'string', default: '10' },
    prompts: { type: 'string', default: '256' },
    tokens: { type: 'string', default: '128' },
  },
  allowPositionals: true,
})
const { device, dtype } = values
const [rounds, count, tokens] = [values.rounds, values.prompts, values.tokens].map(Number)
const python = process.env.PYTHON ?? 'python3'
const here = (name) => join(import.meta.dirname, 'cuda', name)
/** Tokens of the vocabulary that prompts are drawn from: every shape has these. */
const DRAWN = 100
/** How far outputs may be apart, relative to 1 + Σ|attribution| of a row: as README has it, for each side. */
const APART = { f32: 2e-5, f16: 6e-4, bf16: 5e-3 }[dtype]

/** Ends with a message: what is missing here. */
function stop(problem) {
  console.error(`bench/cuda.mjs: ${problem}`)
  process.exit(1)
}

/** That there is a GPU for both, before gigabytes of weights are written. */
async function check() {
  if (APART === undefined) stop(`--dtype ${dtype} is none of f32, bf16, f16`)
  try {
    const model = await Model.demo({ device, dtype })
    await model.close()
  } catch (error) {
    const hint = error.code === 'DEVICE_UNAVAILABLE' ? '\n  --device cpu tries the script out on the CPU' : ''
    stop(`${error.code}: ${error.message}${hint}`)
  }
  const asks = device === 'cpu' ? 'import torch, safetensors' : `import torch, safetensors; torch.zeros(1, device='${device}')`
  const { error, status, stderr } = spawnSync(python, ['-c', asks], { encoding: 'utf8' })
  const said = error?.message ?? stderr?.trim().split('\n').at(-1)
  if (error || status !== 0) stop(`the PyTorch of ${python} does not compute on ${device}: ${said}; $PYTHON names another`)
}

/** The directory of a checkpoint, written once. */
function checkpoint(shape) {
  const directory = join(tmpdir(), `logit-prism-bench-${shape}-${dtype}`)
  if (existsSync(directory)) return directory
  const unfinished = `${directory}-${process.pid}`
  const { status } = spawnSync(python, [here('model.py'), shape, dtype, unfinished], { stdio: 'inherit' })
  assert.equal(status, 0, 'the checkpoint was not written')
  renameSync(unfinished, directory)
  return directory
}

/** A process that answers calls. */
class Peer {
  constructor(name, command, ...args) {
    this.name = name
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  async call(call) {
    this.child.stdin.write(`${JSON.stringify({ answer: 17, against: 23, ...call })}\n`)
    const { value, done } = await this.lines.next()
    assert.ok(!done, `${this.name} has ended`)
    return JSON.parse(value)
  }

  async end() {
    this.child.stdin.end()
    await once(this.child, 'exit')
  }
}

/** The largest difference of two results, relative to 1 + Σ|attribution| of the row. */
function distance(a, b) {
  assert.equal(a.length, b.length)
  const ofRow = (row, other) => {
    assert.equal(row.length, other.length)
    const size = 1 + row.reduce((sum, value) => sum + Math.abs(value), 0)
    return Math.max(...row.map((value, c) => Math.abs(value - other[c]) / size))
  }
  return Math.max(...a.map((row, i) => ofRow(row, b[i])))
}

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1]
const ms = (seconds) => Number((seconds * 1000).toFixed(2))

const next = random(count)
const uniform = Array.from({ length: count }, () => Array.from({ length: tokens }, () => Math.floor(next() * DRAWN)))
const ragged = uniform.map((prompt) => prompt.slice(0, Math.max(1, Math.ceil(prompt.length * next()))))

await check()
const table = []
let on = ''
for (const shape of positionals.length > 0 ? positionals : ['gpt2-small', 'gpt2-xl', 'llama-8b']) {
  const path = checkpoint(shape)
  const ours = new Peer('logit-prism', process.execPath, here('ours.mjs'), path, dtype, device)
  const torch = new Peer('PyTorch', python, here('torch_best.py'), path, dtype, device)
  for (const [name, prompts] of Object.entries({ 'one length': uniform, ragged })) {
    const [a, b] = [await ours.call({ prompts, rows: true }), await torch.call({ prompts, rows: true })]
    on = a.on
    const apart = distance(a.rows, b.rows)
    assert.ok(apart <= APART, `${shape}, ${name}: outputs differ by ${apart}`)
    const seconds = { ours: [], torch: [] }
    for (let round = 0; round < rounds; round++) {
      // the order is rotated: who goes second finds other caches
      for (const peer of round % 2 ? ['ours', 'torch'] : ['torch', 'ours']) {
        seconds[peer].push((await { ours, torch }[peer].call({ prompts })).seconds)
      }
    }
    table.push({
      shape,
      [`${count} prompts × ${tokens}`]: name,
      'ours min ms': ms(Math.min(...seconds.ours)),
      'ours median ms': ms(median(seconds.ours)),
      'PyTorch min ms': ms(Math.min(...seconds.torch)),
      'PyTorch median ms': ms(median(seconds.torch)),
      'ratio of min': Number((Math.min(...seconds.ours) / Math.min(...seconds.torch)).toFixed(2)),
      'ratio of median': Number((median(seconds.ours) / median(seconds.torch)).toFixed(2)),
      'outputs differ by': Number(apart.toExponential(1)),
      'PyTorch peak GB': Number((b.peak / 1e9).toFixed(2)),
    })
  }
  await Promise.all([ours.end(), torch.end()])
}
console.log(`head attribution at the last position, weights in ${dtype}, ${rounds} rounds; every output was compared first`)
console.log(`logit-prism on ${on}; Node ${process.version}`)
console.table(table)
