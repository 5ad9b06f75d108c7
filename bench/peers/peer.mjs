// A process that answers calls, a line of JSON each.
import { strict as assert } from 'node:assert'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

// no bars on stderr
const env = { ...process.env, HF_HUB_DISABLE_PROGRESS_BARS: '1' }
const here = (name) => fileURLToPath(new URL(name, import.meta.url))

const COMMANDS = {
  ours: (path, threads) => [process.execPath, here('ours.mjs'), path, threads],
  hf: (path, threads) => [process.env.PYTHON ?? 'python3', here('torch_best.py'), path, threads, 'HF'],
  torch: (path, threads) => [process.env.PYTHON ?? 'python3', here('torch_best.py'), path, threads],
  lens: (path, threads) => [process.env.TL_PYTHON, here('transformerlens.py'), path, threads],
}

/** Who can be measured, and what the table calls them. */
export const TITLES = {
  ours: 'logit-prism',
  hf: 'PyTorch, Hugging Face with hooks',
  torch: 'PyTorch, written by hand',
  lens: 'TransformerLens',
}

export class Peer {
  /** @param {keyof typeof TITLES} name */
  constructor(name, path, threads) {
    this.name = name
    const [command, ...args] = COMMANDS[name](path, String(threads))
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env })
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  /** @returns {Promise<{ seconds: number, cpu: number, rows: number[][] | null, peak: number }>} */
  async call(call) {
    this.child.stdin.write(`${JSON.stringify(call)}\n`)
    const { value, done } = await this.lines.next()
    assert.ok(!done, `${TITLES[this.name]} has ended`)
    return JSON.parse(value)
  }

  async end() {
    this.child.stdin.end()
    if (this.child.exitCode === null) await once(this.child, 'exit')
  }
}

/** The answer of a process that is started for one call, and the seconds from its start to that answer. */
export async function alone(name, path, threads, call) {
  const start = performance.now()
  const peer = new Peer(name, path, threads)
  const answer = await peer.call(call)
  const elapsed = (performance.now() - start) / 1000
  await peer.end()
  return { ...answer, elapsed }
}

/** The largest difference of two results. */
export function distance(a, b) {
  assert.equal(a.length, b.length)
  let worst = 0
  for (const [i, row] of a.entries()) {
    assert.equal(row.length, b[i].length)
    for (const [c, value] of row.entries()) {
      assert.ok(Number.isFinite(value) && Number.isFinite(b[i][c]))
      worst = Math.max(worst, Math.abs(value - b[i][c]))
    }
  }
  return worst
}
