// Prints how many bytes outside of V8's heap 100 results of a stream left behind when only young objects were collected.
import { Model, sleep } from './common.mjs'

const model = await Model.demo()
function* prompts() {
  for (let i = 0; i < 100 * 256; i++) {
    yield { prompt: [0, (i * 7) % 342, (i * 3) % 342, 5], target: { answer: i % 342, against: 'mean' } }
  }
}
const collected = async () => {
  globalThis.gc({ type: 'minor' })
  await sleep(5) // memory is given back in tasks of their own
}
const before = process.memoryUsage().external
let results = 0
let values = 0
for await (const result of model.attributeStream(prompts())) {
  values += result.values.byteLength
  if (++results % 10 === 0) await collected()
}
for (let i = 0; i < 3; i++) await collected()
console.log(JSON.stringify({ results, values, left: process.memoryUsage().external - before }))
await model.close()
