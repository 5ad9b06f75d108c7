// The story of the demo model, told end to end on the IOI data set: what attribution sees, what ablation confirms, who backs
// whom up, what is silent where it does not act, and what a circuit of it can do alone. What has to come out is known: the
// movers L3H0 and L3H1 and the feeders L2H0 and L2H1 were planted (models/demo/README.md).
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Causal, type Dataset, ioi, Model } from '../../src/index.js'

const MOVERS = ['L3H0', 'L3H1']
const FEEDERS = ['L2H0', 'L2H1']

let model: Model
let data: Dataset
/** Everything replaced by its value in the twin, in which nobody is repeated: at the last position, and everywhere. */
let atRow: Causal
let everywhere: Causal
/** Everything replaced by zero, at the last position. */
let zero: Causal

beforeAll(async () => {
  model = await Model.demo()
  data = ioi(model, { n: 60, seed: 1 })
  const set = { from: data.corrupted }
  atRow = await model.ablate(data.prompts, data.targets, { set })
  everywhere = await model.ablate(data.prompts, data.targets, { set, ablateAt: 'all' })
  zero = await model.ablate(data.prompts, data.targets)
})

afterAll(() => model.close())

const meanOf = (causal: Causal, label: string) => {
  const found = causal.mean().find((one) => one.label === label)
  if (!found) throw new Error(label)
  return found
}

/** What others write less (+) or more (−) of, mean over the rows. */
function through(causal: Causal, label: string): Map<string, number> {
  const sums = new Map<string, number>()
  const n = causal.rows.prompt.length
  for (const row of causal) {
    for (const { label: by, value } of row.get(label).mediators) sums.set(by, (sums.get(by) ?? 0) + value / n)
  }
  return new Map([...sums].sort(([, a], [, b]) => Math.abs(b) - Math.abs(a)))
}

test('the model does the task, and not on the twins', async () => {
  const [clean, twins] = [await model.evaluate(data), await model.evaluate(data, { corrupted: true })]
  expect(clean.accuracy.mean).toBeGreaterThan(0.9)
  expect(Math.abs(twins.logitDifference.mean)).toBeLessThan(clean.logitDifference.mean / 4)
})

test('attribution finds the movers', async () => {
  const attribution = await model.attribute(data.prompts, data.targets)
  expect(attribution.kind).toBe('observed')
  const ranked = attribution.mean().sort((a, b) => b.mean - a.mean)
  expect(
    ranked
      .slice(0, 2)
      .map(({ label }) => label)
      .sort(),
  ).toEqual(MOVERS)
  expect(ranked[1]?.mean ?? 0).toBeGreaterThan(5 * (ranked[2]?.mean ?? 0))
})

test('ablation confirms them', () => {
  for (const label of MOVERS) {
    const { direct, total, verdicts } = meanOf(atRow, label)
    expect(total / direct).toBeGreaterThan(0.8)
    expect(verdicts.confirmed ?? 0).toBeGreaterThan(0.75 * data.length)
  }
})

test('who backs them up: the final norm, and each the other', async () => {
  for (const label of MOVERS) {
    const { direct, total, throughNorm } = meanOf(zero, label)
    const others = [...through(zero, label).values()].reduce((sum, value) => sum + value, 0)
    expect(direct + throughNorm + others).toBeCloseTo(total, 3)
    // without the head the stream is shorter, so that what the other mover wrote counts for more
    expect(throughNorm).toBeLessThan(-0.3 * direct)
    expect(Math.abs(others)).toBeLessThan(0.1 * direct)
  }
  const circuit = zero.circuit({ components: MOVERS })
  const sets = [['L3H0'], ['L3H1'], MOVERS]
  const found = await model.faithfulness(data.prompts, data.targets, circuit, { completeness: { sets } })
  const full = found.mean().full.value
  const [a = 0, b = 0, both = 0] = found.completeness.map((part) => full - part.full)
  expect(a).toBeCloseTo(meanOf(zero, 'L3H0').total, 3)
  expect(b).toBeCloseTo(meanOf(zero, 'L3H1').total, 3)
  expect(both).toBeGreaterThan(2 * (a + b))
})

test('an effect that is taken back, and by whom', () => {
  const rows = Array.from(zero, (row) => MOVERS.map((label) => row.get(label))).flat()
  const back = rows.filter(({ verdict, direct }) => (verdict === 'erased' || verdict === 'repaired') && direct > 2)
  expect(back.length).toBeGreaterThan(3)
  for (const { direct, total, mediators, throughNorm, tolerance } of back) {
    expect(Math.abs(total)).toBeLessThan(0.2 * direct)
    const takers = [...mediators, { label: 'norm', value: throughNorm }].sort((a, b) => a.value - b.value)
    expect(takers[0]?.label).toBe('norm')
    const sum = takers.reduce((all, { value }) => all + value, direct)
    expect(Math.abs(sum - total)).toBeLessThanOrEqual(tolerance + 1e-5)
  }
})

test('the feeders write little and act through the movers; either stands in for the other', async () => {
  const difference = zero.measured.reduce((sum, value) => sum + value, 0) / data.length
  for (const label of FEEDERS) {
    const { direct, total } = meanOf(atRow, label)
    expect(direct).toBeLessThan(0.06 * difference)
    expect(total).toBeGreaterThan(5 * direct)
    expect([...through(atRow, label).keys()].slice(0, 2).sort()).toEqual(MOVERS)
  }
  const circuit = zero.circuit({ components: FEEDERS })
  const sets = [['L2H0'], ['L2H1'], FEEDERS]
  const found = await model.faithfulness(data.prompts, data.targets, circuit, { completeness: { sets } })
  const [a = 0, b = 0, both = 0] = found.completeness.map((part) => found.mean().full.value - part.full)
  expect(both).toBeGreaterThan(1.5 * (a + b))
})

test('what the feeders read is prepared elsewhere: silent at the row, needed at all positions', () => {
  const { direct, total, verdicts } = meanOf(atRow, 'L0H3')
  expect(Math.max(Math.abs(direct), Math.abs(total))).toBeLessThan(0.2)
  expect(verdicts.silent ?? 0).toBeGreaterThan(0.75 * data.length)
  const all = meanOf(everywhere, 'L0H3')
  expect(Math.abs(all.direct)).toBeLessThan(0.2)
  expect(all.total).toBeGreaterThan(5)
  expect(all.verdicts.indirect ?? 0).toBeGreaterThan(0.9 * data.length)
  expect([...through(everywhere, 'L0H3').keys()].slice(0, 2).sort()).toEqual(MOVERS)
})

test('a circuit of it does the task, also on prompts that it was not found on; a smaller one does less', async () => {
  const [large, small] = [everywhere.circuit({ keep: 0.95 }), everywhere.circuit({ keep: 0.5 })]
  expect(large.labels).toEqual(expect.arrayContaining([...MOVERS, ...FEEDERS, 'L0H3']))
  expect(large.components.length).toBeLessThan(15) // of 20 heads and MLPs
  expect(small.labels.every((label) => large.labels.includes(label))).toBe(true)
  const others = ioi(model, { n: 60, seed: 2 })
  for (const { prompts, targets, corrupted } of [data, others]) {
    const set = { from: corrupted }
    const options = { set, minimality: true }
    const [more, less] = [
      await model.faithfulness(prompts, targets, large, options),
      await model.faithfulness(prompts, targets, small, { set }),
    ]
    const [a, b] = [more.mean({ resamples: 200 }), less.mean({ resamples: 200 })]
    expect(a.score.value).toBeGreaterThan(0.8)
    expect(b.score.value).toBeLessThan(a.score.value - 0.2)
    expect(b.score.interval[1]).toBeLessThan(a.score.interval[0])
    const matter = more.minimality.toSorted((x, y) => y.change - x.change).slice(0, 6)
    expect(matter.map(({ label }) => label)).toEqual(expect.arrayContaining(['L2H0', 'L3H0']))
  }
})
