// Prints by how many bytes the process grew over many cycles of load, call and close.
import { Model, probe, sleep } from './common.mjs'

const [, , how] = process.argv

async function cycle() {
  const model = await Model.demo()
  await probe(model)
  if (how === 'close') await model.close()
}

const settled = async () => {
  for (let i = 0; i < 5; i++) {
    globalThis.gc()
    await sleep(20)
  }
  return process.memoryUsage().rss
}

for (let i = 0; i < 5; i++) await cycle()
const before = await settled()
for (let i = 0; i < 100; i++) {
  await cycle()
  // what is not closed is freed when it is collected
  if (how !== 'close' && i % 10 === 9) await settled()
}
console.log((await settled()) - before)
