// What the scripts share: the built package, as a user imports it, and enough work to be in the middle of.
export { Model, PrismError, Run } from '../../../dist/index.js'

export const BIG = Array.from({ length: 4000 }, (_, i) => {
  return Uint32Array.from({ length: 40 }, (_, t) => (t === 0 ? 0 : (i * 37 + t * 11) % 342))
})
export const TARGET = { answer: 'predicted', against: 'mean' }

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** L3H1 on the demo prompt, 3.518 in models/demo/figures.json: says that a model works. */
export async function probe(model) {
  const prompt = 'When Mary and John went to the store, John gave a drink to'
  const result = await model.attribute([prompt], { answer: ' Mary', against: ' John' })
  return result.row(0).value('L3H1').toFixed(3)
}
