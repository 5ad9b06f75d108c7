// The same calls as torch_best.py, answered by this package: ours.mjs CHECKPOINT THREADS
import { createInterface } from 'node:readline'
import { Model } from '../../dist/index.js'

const [path, threads] = process.argv.slice(2)
const model = await Model.load(path, { threads: Number(threads) })
for await (const line of createInterface({ input: process.stdin })) {
  const { prompts, answer, against, rows } = JSON.parse(line)
  const ids = prompts.map((prompt) => Uint32Array.from(prompt))
  const [start, cpu] = [performance.now(), process.cpuUsage()]
  const result = await model.attribute(ids, { answer, against })
  const seconds = (performance.now() - start) / 1000
  const { user, system } = process.cpuUsage(cpu)
  const values = rows ? ids.map((_, i) => Array.from(result.row(i).values)) : null
  console.log(JSON.stringify({ seconds, cpu: (user + system) / 1e6, rows: values, peak: process.resourceUsage().maxRSS * 1024 }))
}
await model.close()
