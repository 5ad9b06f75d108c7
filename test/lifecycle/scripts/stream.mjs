// Prints by how many bytes the process grew while 20,000 short prompts streamed through, after the first 2,000.
import { Model } from './common.mjs'

const model = await Model.demo()
let after = 0
function* prompts() {
  for (let i = 0; i < 20_000; i++) {
    yield { prompt: [0, (i * 7) % 342, (i * 3) % 342, 5], target: { answer: i % 342, against: 'mean' } }
    if (i === 2000) {
      globalThis.gc()
      after = process.memoryUsage().rss
    }
  }
}
const kept = []
let rows = 0
if (process.argv[2] === 'summary') {
  rows = (await model.attributeSummary(prompts(), { resamples: 100, position: 'all' })).rows
} else {
  for await (const result of model.attributeStream(prompts(), { position: 'all' })) {
    kept.push(process.argv[2] === 'kept' ? result : 0)
    rows += result.rows.prompt.length
  }
}
globalThis.gc()
const grown = process.memoryUsage().rss - after
await model.close()
console.log(JSON.stringify({ rows, grown }))
