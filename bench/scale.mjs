// 100,000 short prompts on the demo model, in one call of each kind that takes many: npm run bench:scale -- [prompts]
// Each call has a process of its own, with a tenth of the prompts and with all of them: time grows as they do. What stays in
// memory is the result of `attribute`; a stream and a summary hold none. Checked: prompts drawn from the whole, each attributed
// alone; the stream's sums against the summary's means; that progress only rises and ends at the last prompt.
import { strict as assert } from 'node:assert'
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { Model } from '../dist/index.js'
import { random } from './peers/model.mjs'
import { gb, machine, print } from './table.mjs'

const [SAMPLE, SEED, THREADS] = [50, 3, 2]
const MB = 1e6

/** Random ids, 5 to 15 a prompt, one target each; made when they are asked for. */
function* items(count, dVocab) {
  const next = random(SEED)
  const uniform = (n) => Math.floor(next() * n)
  for (let i = 0; i < count; i++) {
    const prompt = Uint32Array.from({ length: 5 + uniform(11) }, () => uniform(dVocab))
    const answer = uniform(dVocab)
    yield { prompt, target: { answer, against: (answer + 1 + uniform(dVocab - 1)) % dVocab } }
  }
}

/** Progress as a call should report it. */
class Steps {
  done = 0
  count = 0
  on = ({ done }) => {
    assert.ok(done >= this.done, `progress fell from ${this.done} to ${done}`)
    this.done = done
    this.count++
  }
}

/** Each call gives what it must hold: its sums over all rows, and some rows as [prompt, values, tolerance]. */
const CALLS = {
  async attribute(model, count, sampled, onProgress) {
    const all = [...items(count, model.config.dVocab)]
    const before = process.memoryUsage().rss // with the prompts
    const start = performance.now()
    const result = await model.attribute(all.map(({ prompt }) => prompt), all.map(({ target }) => target), { onProgress }) // prettier-ignore
    const seconds = (performance.now() - start) / 1000
    assert.ok(result.certified)
    const held = result.values.byteLength
    const rows = sampled.map((i) => [i, result.row(i).values, result.row(i).tolerance])
    return { seconds, before, held, rows, sums: sumsOf(result) }
  },
  async attributeStream(model, count, sampled, onProgress) {
    const before = process.memoryUsage().rss
    const [rows, wanted] = [[], new Set(sampled)]
    let sums
    const start = performance.now()
    for await (const result of model.attributeStream(items(count, model.config.dVocab), { onProgress })) {
      assert.ok(result.certified)
      const part = sumsOf(result)
      sums = sums ? sums.map((sum, c) => sum + part[c]) : part
      result.rows.prompt.forEach((prompt, i) => {
        const { values, tolerance } = wanted.has(result.firstPrompt + prompt) ? result.row(i) : {}
        if (values) rows.push([result.firstPrompt + prompt, values, tolerance])
      })
    }
    return { seconds: (performance.now() - start) / 1000, before, held: 0, rows, sums }
  },
  async attributeSummary(model, count, _sampled, onProgress) {
    const before = process.memoryUsage().rss
    const start = performance.now()
    const summary = await model.attributeSummary(items(count, model.config.dVocab), { onProgress })
    const seconds = (performance.now() - start) / 1000
    assert.ok(summary.certified && summary.prompts === count)
    return { seconds, before, held: 0, rows: [], sums: summary.means.map(({ mean }) => mean * count) }
  },
}

/** Of every column, over all rows. */
function sumsOf({ values, components: { length } }) {
  const sums = Array.from({ length }, () => 0)
  for (let i = 0; i < values.length; i++) sums[i % length] += values[i]
  return sums
}

/** In a process of its own: one call, checked. */
async function child(name, count) {
  const model = await Model.demo({ threads: THREADS })
  const next = random(count)
  const sampled = Array.from({ length: SAMPLE }, () => Math.floor(next() * count))
  const first = [...items(1, model.config.dVocab)]
  await model.attribute([first[0].prompt], first[0].target) // threads and code are there
  const steps = new Steps()
  const highest = [0, 0, 0, 0] // while each quarter of the prompts runs
  const look = () => {
    const quarter = Math.min(Math.floor((4 * steps.done) / count), 3)
    highest[quarter] = Math.max(highest[quarter], process.memoryUsage().rss)
  }
  const watch = setInterval(look, 20)
  const { seconds, before, held, rows, sums } = await CALLS[name](model, count, sampled, steps.on)
  clearInterval(watch)
  look()
  assert.equal(steps.done, count)
  assert.ok(steps.count > 1, 'progress came while it ran')

  const all = [...items(count, model.config.dVocab)]
  let worst = 0
  for (const [i, values, tolerance] of rows) {
    const alone = (await model.attribute([all[i].prompt], all[i].target)).row(0).values
    assert.equal(values.length, alone.length)
    values.forEach((value, c) => (worst = Math.max(worst, Math.abs(value - alone[c]) / tolerance)))
  }
  assert.ok(worst <= 1, `a prompt alone differs by ${worst} of its tolerance`)
  if (name !== 'attributeSummary') assert.equal(new Set(rows.map(([i]) => i)).size, new Set(sampled).size)
  await model.close()
  console.log(
    JSON.stringify({
      seconds,
      held,
      worst,
      sums,
      growth: highest.map((rss) => rss - before),
      peak: process.resourceUsage().maxRSS * 1024,
    }),
  )
}

function inChild(name, count) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [import.meta.filename, '--child', name, String(count)], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
  return JSON.parse(stdout)
}

function measure(name, count, expected) {
  const [few, many] = [inChild(name, count / 10), inChild(name, count)]
  for (const [c, sum] of many.sums.entries()) {
    // sums of numbers that are exact to 1e-5 each
    assert.ok(Math.abs(sum - (expected ?? many.sums)[c]) <= 1e-5 * count, `${name}: column ${c} sums to ${sum}`)
  }
  const row = {
    call: `${name}, ${count.toLocaleString('en')} prompts`,
    s: many.seconds.toFixed(1),
    'prompts a second': Math.round(count / many.seconds),
    'time, of a tenth of them': (many.seconds / few.seconds).toFixed(1),
    'memory in each quarter of it, MB': many.growth.map((bytes) => (bytes / MB).toFixed(0)).join(' / '),
    'of that the result, MB': (many.held / MB).toFixed(1),
    'peak of the process, GB': gb(many.peak),
    'alone differs by, of tolerance': name === 'attributeSummary' ? '(sums agree)' : many.worst.toFixed(3),
  }
  return { row, sums: many.sums }
}

if (process.argv[2] === '--child') {
  await child(process.argv[3], Number(process.argv[4]))
} else {
  const count = Number(process.argv[2] ?? 100_000)
  assert.ok(Number.isSafeInteger(count / 10) && count >= 10_000, 'a multiple of 10, from 10,000 on')
  const rows = []
  let sums
  for (const name of Object.keys(CALLS)) {
    const measured = measure(name, count, sums)
    sums ??= measured.sums
    rows.push(measured.row)
  }
  console.log(
    `demo model, prompts of 5 to 15 tokens, ${THREADS} of ${availableParallelism()} threads; ${machine()}; every output was checked`,
  )
  print(rows)
}
