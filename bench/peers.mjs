// Head attribution beside the best PyTorch, alternating in one run: node bench/peers.mjs [--rounds N] [--threads N] [--hf] [shape …]
// The model has GPT-2 small's shape and random weights. Outputs are compared first; only then is anything timed. PyTorch is
// that of $PYTHON (default python3), with bench/peers/requirements.txt installed; with --hf it runs Hugging Face's forward
// pass instead of one written for speed.
import { strict as assert } from 'node:assert'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpus } from 'node:os'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { D_VOCAB, random, writeModel } from './peers/model.mjs'

const { values, positionals } = parseArgs({
  options: {
    rounds: { type: 'string', default: '10' },
    threads: { type: 'string', default: '2' },
    hf: { type: 'boolean', default: false },
  },
  allowPositionals: true,
})
const { threads } = values
const rounds = Number(values.rounds)
const here = (name) => fileURLToPath(new URL(`peers/${name}`, import.meta.url))

/** Prompts of random ids. */
function prompts(count, length) {
  const next = random(count)
  const uniform = (n) => Math.floor(next() * n)
  return Array.from({ length: count }, () => Array.from({ length: length(uniform) }, () => uniform(D_VOCAB)))
}

const SHAPES = {
  '32x16': prompts(32, () => 16),
  '8x128': prompts(8, () => 128),
  '256 ragged': prompts(256, (uniform) => 10 + uniform(16)),
  '1x16': prompts(1, () => 16),
  '2x1024': prompts(2, () => 1024),
}

/** A process that answers calls. */
class Peer {
  constructor(name, command, ...args) {
    this.name = name
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  async call(call) {
    this.child.stdin.write(`${JSON.stringify({ answer: 1000, against: 2000, ...call })}\n`)
    const { value, done } = await this.lines.next()
    assert.ok(!done, `${this.name} has ended`)
    return JSON.parse(value)
  }

  async end() {
    this.child.stdin.end()
    await once(this.child, 'exit')
  }
}

const path = writeModel()
const peers = {
  ours: () => new Peer('logit-prism', process.execPath, here('ours.mjs'), path, threads),
  torch: () =>
    new Peer('PyTorch', process.env.PYTHON ?? 'python3', here('torch_best.py'), path, threads, ...(values.hf ? ['HF'] : [])),
}

/** The largest difference of two results. */
function distance(a, b) {
  assert.equal(a.length, b.length)
  let worst = 0
  for (const [i, row] of a.entries()) {
    assert.equal(row.length, b[i].length)
    for (const [c, value] of row.entries()) worst = Math.max(worst, Math.abs(value - b[i][c]))
  }
  return worst
}

/** Peak memory of a process that loads the model and answers one call. */
async function peak(start, batch) {
  const peer = start()
  const { peak: bytes } = await peer.call({ prompts: batch })
  await peer.end()
  return bytes
}

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1]
const ms = (seconds) => Number((seconds * 1000).toFixed(1))

const [ours, torch] = [peers.ours(), peers.torch()]
const table = []
for (const [shape, batch] of Object.entries(SHAPES)) {
  if (positionals.length > 0 && !positionals.includes(shape)) continue
  const [a, b] = [await ours.call({ prompts: batch, rows: true }), await torch.call({ prompts: batch, rows: true })]
  const apart = distance(a.rows, b.rows)
  assert.ok(apart <= 1e-4, `${shape}: outputs differ by ${apart}`)
  const [seconds, cpu] = [
    { ours: [], torch: [] },
    { ours: [], torch: [] },
  ]
  for (let round = 0; round < rounds; round++) {
    // the order is rotated: who goes second finds other caches
    for (const name of round % 2 ? ['ours', 'torch'] : ['torch', 'ours']) {
      const answer = await { ours, torch }[name].call({ prompts: batch })
      seconds[name].push(answer.seconds)
      cpu[name].push(answer.cpu)
    }
  }
  const least = { ours: Math.min(...seconds.ours), torch: Math.min(...seconds.torch) }
  table.push({
    'prompts × tokens': shape,
    'ours min ms': ms(least.ours),
    'ours median ms': ms(median(seconds.ours)),
    'PyTorch min ms': ms(least.torch),
    'PyTorch median ms': ms(median(seconds.torch)),
    'ratio of min': Number((least.ours / least.torch).toFixed(2)),
    'ratio of median': Number((median(seconds.ours) / median(seconds.torch)).toFixed(2)),
    // of all threads: says more than seconds where other programs run beside
    'ratio of CPU time': Number((Math.min(...cpu.ours) / Math.min(...cpu.torch)).toFixed(2)),
    'outputs differ by': Number(apart.toExponential(1)),
    'ours peak GB': Number(((await peak(peers.ours, batch)) / 1e9).toFixed(2)),
    'PyTorch peak GB': Number(((await peak(peers.torch, batch)) / 1e9).toFixed(2)),
  })
}
await Promise.all([ours.end(), torch.end()])
console.log(`GPT-2 small's shape, head attribution at the last position, f32, ${threads} threads each, ${rounds} rounds`)
console.log(`${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}; every output was compared first`)
console.table(table)
