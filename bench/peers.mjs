// Head attribution beside PyTorch and TransformerLens, in turns in one run: npm run bench:peers -- [--rounds N] [--threads N]
//   [--peers hf,torch,lens] [--markdown] [shape …]
// The model has GPT-2 small's shape and random weights; `start` is from a process's start to its first attribution of the
// demo model. Outputs are compared first, to 1e-4; only then is anything timed. PyTorch is that of $PYTHON (default python3)
// with bench/peers/requirements.txt, TransformerLens that of $TL_PYTHON with requirements-transformerlens.txt.
import { strict as assert } from 'node:assert'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { demoCall, SHAPES } from './peers/calls.mjs'
import { writeModel } from './peers/model.mjs'
import { alone, distance, Peer, TITLES } from './peers/peer.mjs'
import { gb, machine, median, ms, print } from './table.mjs'

const TOLERANCE = 1e-4
const START = 'start'
/** Milliseconds in which the threads of the one before stop spinning. */
const REST = 100

const { values, positionals } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: '2' },
    peers: { type: 'string' },
    markdown: { type: 'boolean', default: false },
  },
  allowPositionals: true,
})
const { threads, markdown } = values
const rounds = Number(values.rounds)
assert.ok(Number.isSafeInteger(rounds) && rounds > 0, `--rounds ${values.rounds}`)
const others = (values.peers ?? (process.env.TL_PYTHON ? 'hf,torch,lens' : 'hf,torch')).split(',')
const names = ['ours', ...others]
const wanted = positionals.length > 0 ? positionals : [...Object.keys(SHAPES), START]
for (const name of names) assert.ok(Object.hasOwn(TITLES, name), `no peer ${name}: ${Object.keys(TITLES)}`)
for (const shape of wanted) assert.ok(shape === START || Object.hasOwn(SHAPES, shape), `no shape ${shape}: ${Object.keys(SHAPES)}`)
assert.ok(!others.includes('lens') || process.env.TL_PYTHON, 'TransformerLens needs $TL_PYTHON')

/** Every peer's answers, in turns: who goes second finds other caches, so the order is rotated. */
async function inTurns(ask) {
  const answers = Object.fromEntries(names.map((name) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const i of names.keys()) {
      const name = names[(i + round) % names.length]
      await setTimeout(REST)
      answers[name].push(await ask(name))
    }
  }
  return answers
}

/** That every peer's rows are ours, and how far they are apart. */
function compared(shape, rows) {
  const apart = others.map((name) => {
    const worst = distance(rows.ours, rows[name])
    assert.ok(worst <= TOLERANCE, `${shape}: ${TITLES[name]} differs by ${worst}`)
    return worst
  })
  return Math.max(...apart)
}

/** A line of the table, from seconds and peak bytes of every peer. */
function line(shape, seconds, peaks, apart) {
  const ratio = (of, rivals) => (of(seconds.ours) / Math.min(...rivals.map((name) => of(seconds[name])))).toFixed(2)
  const least = (list) => Math.min(...list)
  const torch = others.filter((name) => name !== 'lens')
  return {
    'prompts × tokens': shape.replace('x', ' × '),
    ...Object.fromEntries(
      names.map((name) => [`${TITLES[name]}, ms`, `${ms(least(seconds[name]))} / ${ms(median(seconds[name]))}`]),
    ),
    ...(torch.length > 0 ? { 'of the best PyTorch': `${ratio(least, torch)} / ${ratio(median, torch)}` } : {}),
    ...(others.includes('lens') ? { 'of TransformerLens': `${ratio(least, ['lens'])} / ${ratio(median, ['lens'])}` } : {}),
    'peak memory, GB': names.map((name) => gb(peaks[name])).join(' / '),
    'outputs differ by': apart.toExponential(0),
  }
}

const each = async (of) => Object.fromEntries(await Promise.all(names.map(async (name) => [name, await of(name)])))
const column = (answers, key) => Object.fromEntries(names.map((name) => [name, answers[name].map((answer) => answer[key])]))

/** Calls to processes that have the model loaded. */
async function measure(shape, path, peers) {
  const call = SHAPES[shape]
  const first = {}
  for (const name of names) first[name] = await peers[name].call({ ...call, rows: true })
  const apart = compared(shape, Object.fromEntries(names.map((name) => [name, first[name].rows])))
  const answers = await inTurns((name) => peers[name].call(call))
  // of a process that loads the model and answers this one call
  const peaks = {}
  for (const name of names) peaks[name] = (await alone(name, path, threads, call)).peak
  return line(shape, column(answers, 'seconds'), peaks, apart)
}

/** Processes that are started for one call. */
async function measureStart() {
  const [path, call] = [fileURLToPath(new URL('../models/demo', import.meta.url)), await demoCall()]
  const answers = await inTurns((name) => alone(name, path, threads, { ...call, rows: true }))
  const apart = compared(START, Object.fromEntries(names.map((name) => [name, answers[name][0].rows])))
  const peaks = Object.fromEntries(names.map((name) => [name, Math.max(...answers[name].map(({ peak }) => peak))]))
  return line('process start to the demo model’s first', column(answers, 'elapsed'), peaks, apart)
}

const table = []
const shapes = wanted.filter((shape) => shape !== START)
if (shapes.length > 0) {
  const path = writeModel()
  const peers = await each((name) => new Peer(name, path, threads))
  for (const shape of shapes) table.push(await measure(shape, path, peers))
  await Promise.all(names.map((name) => peers[name].end()))
}
if (wanted.includes(START)) table.push(await measureStart())
print(table, { markdown })
console.log(
  `${markdown ? '\n' : ''}Head attribution at the last position, f32; minimum / median of ${rounds} rounds in turns, ${threads} threads each.`,
  `\n${machine()}. Peak memory in the order of the columns. Every output was compared first.`,
)
if (!others.includes('lens')) console.log('TransformerLens was not measured: $TL_PYTHON is not set, or --peers left it out.')
