// Ends by itself: after close, without close, with a call still running, or by process.exit in the middle of one.
import { BIG, Model, probe, sleep, TARGET } from './common.mjs'

const [, , how] = process.argv
const model = await Model.demo()
console.log(await probe(model))
if (how === 'close') await model.close()
if (how === 'running') void model.attribute(BIG.slice(0, 700), TARGET, { onProgress: () => {} }).then(() => console.log('done'))
if (how === 'exit') {
  void model.attribute(BIG, TARGET, { onProgress: () => {} }).then(() => console.log('done'))
  await sleep(40)
  process.exit(7)
}
if (how === 'exit-many') {
  for (let i = 0; i < 5; i++) void model.attribute(BIG, TARGET)
  void Model.demo()
  process.exit(7)
}
if (how === 'throw') {
  void model.attribute(BIG, TARGET)
  throw new Error('mine')
}
