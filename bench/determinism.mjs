// How far numbers depend on how they are computed, on GPT-2 small's shape: npm run bench:determinism
// The same call twice must be bitwise equal; other threads, chunks and batches must stay within 1e-5 (1 + Σ |attributions|). The
// table says how much of that they use. test/native/determinism.test.ts asks the same of small models.
import { strict as assert } from 'node:assert'
import { Model } from '../dist/index.js'
import { D_VOCAB, random, writeModel } from './peers/model.mjs'
import { machine, print } from './table.mjs'

const TARGET = { answer: 11, against: 13 }
const draw = random(5)
const tokens = (n) => Array.from({ length: n }, () => Math.floor(draw() * D_VOCAB))
const prefix = tokens(20)
// ragged, long, and some that share what they begin with
const PROMPTS = [
  ...Array.from({ length: 40 }, () => tokens(1 + Math.floor(draw() * 30))),
  ...Array.from({ length: 8 }, () => [...prefix, ...tokens(5)]),
  tokens(300),
]

/** The largest difference of rows, in parts of what is allowed, and in logits. */
function worst(expected, found, rowOf = (row) => row) {
  assert.equal(found.components.length, expected.components.length)
  let [share, logits] = [0, 0]
  for (const row of expected.rows.prompt.keys()) {
    const [a, b] = [expected.row(row).values, found.row(rowOf(row)).values]
    const off = Math.max(...a.map((value, c) => Math.abs(value - b[c])))
    logits = Math.max(logits, off)
    share = Math.max(share, off / (1e-5 * (1 + a.reduce((sum, value) => sum + Math.abs(value), 0))))
  }
  assert.ok(share <= 1, `${share} of what is allowed`)
  return { 'largest difference, logits': logits.toExponential(1), 'of what is allowed': share.toFixed(3) }
}

const path = writeModel()
const open = (threads) => Model.load(path, { threads })
const [two, rows] = [await open(2), []]
const expected = await two.attribute(PROMPTS, TARGET)
assert.ok(expected.certified)
const again = await two.attribute(PROMPTS, TARGET)
assert.deepEqual(again.values, expected.values)
rows.push({ what: 'the same call twice', ...worst(expected, again) })
for (const batchTokens of [1, 64, 4096]) {
  const found = await two.attribute(PROMPTS, TARGET, { batchTokens })
  rows.push({ what: `batchTokens ${batchTokens}`, ...worst(expected, found) })
}
const reversed = await two.attribute(PROMPTS.toReversed(), TARGET)
rows.push({ what: 'prompts in the other order', ...worst(expected, reversed, (row) => PROMPTS.length - 1 - row) })
for (const index of [0, 17, 45, PROMPTS.length - 1]) {
  const perPrompt = PROMPTS.map((_, other) => (other === index ? [-1] : []))
  const together = await two.attribute(PROMPTS, TARGET, { position: { perPrompt } })
  const alone = await two.attribute([PROMPTS[index]], TARGET)
  rows.push({ what: `a prompt of ${PROMPTS[index].length} tokens alone`, ...worst(alone, together) })
}
await two.close()
for (const threads of [1, 5]) {
  const model = await open(threads)
  rows.push({
    what: `${threads} ${threads === 1 ? 'thread' : 'threads'}, not 2`,
    ...worst(expected, await model.attribute(PROMPTS, TARGET)),
  })
  await model.close()
}
console.log(`GPT-2 small's shape, ${PROMPTS.length} prompts of 1 to 300 tokens, heads, f32; ${machine()}`)
print(rows)
