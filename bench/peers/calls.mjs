// The calls that are measured.
import { Model } from '../../dist/index.js'
import { D_VOCAB, random } from './model.mjs'

const [ANSWER, AGAINST] = [1000, 2000]

/** Prompts of random ids, the first `shared` of which are the same in all. */
function prompts(count, length, shared = 0) {
  const next = random(count)
  const uniform = (n) => Math.floor(next() * n)
  const ids = (n) => Array.from({ length: n }, () => uniform(D_VOCAB))
  const prefix = ids(shared)
  return Array.from({ length: count }, () => [...prefix, ...ids(length(uniform) - shared)])
}

/** On GPT-2 small's shape: prompts × tokens. */
export const SHAPES = Object.fromEntries(
  Object.entries({
    '1x16': prompts(1, () => 16),
    '32x16': prompts(32, () => 16),
    '8x128': prompts(8, () => 128),
    '256 ragged': prompts(256, (uniform) => 10 + uniform(16)),
    '2x1024': prompts(2, () => 1024),
    '64x216 shared 200': prompts(64, () => 216, 200),
  }).map(([shape, batch]) => [shape, { prompts: batch, answer: ANSWER, against: AGAINST }]),
)

/** The example of the demo model. */
export async function demoCall() {
  const model = await Model.demo()
  const { tokenizer } = model
  const call = {
    prompts: [Array.from(tokenizer.encode('When Mary and John went to the store, John gave a drink to'))],
    // its entries for words begin with a space, as GPT-2's do
    answer: tokenizer.encode(' Mary', { prependBos: false })[0],
    against: tokenizer.encode(' John', { prependBos: false })[0],
  }
  await model.close()
  return call
}
