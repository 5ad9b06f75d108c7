// The same calls as torch_best.py, answered by this package: ours.mjs CHECKPOINT DTYPE DEVICE
import { createInterface } from 'node:readline'
import { Model } from '../../dist/index.js'

const [path, dtype, device] = process.argv.slice(2)
const model = await Model.load(path, { device, dtype })
for await (const line of createInterface({ input: process.stdin })) {
  const { prompts, answer, against, rows } = JSON.parse(line)
  const ids = prompts.map((prompt) => Uint32Array.from(prompt))
  const start = performance.now()
  const result = await model.attribute(ids, { answer, against })
  const seconds = (performance.now() - start) / 1000
  const values = rows ? ids.map((_, i) => Array.from(result.row(i).values)) : null
  console.log(JSON.stringify({ seconds, rows: values, on: `${model.device}: ${model.deviceReason}` }))
}
await model.close()
