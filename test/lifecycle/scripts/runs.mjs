// Prints by how many bytes the process grew over 20 runs that kept everything.
import { BIG, Model, sleep } from './common.mjs'

const [, , how] = process.argv
const model = await Model.demo()
const settled = async () => {
  for (let i = 0; i < 5; i++) {
    globalThis.gc()
    await sleep(20)
  }
  return process.memoryUsage().rss
}
async function cycle() {
  const run = await model.run(BIG.slice(0, 40), { cache: ['*'], logits: 'all' })
  run.cache.get('blocks.1.attn.hook_result', 3)
  if (how === 'close') run.close()
  else await settled()
}

for (let i = 0; i < 3; i++) await cycle()
const before = await settled()
for (let i = 0; i < 20; i++) await cycle()
console.log((await settled()) - before)
