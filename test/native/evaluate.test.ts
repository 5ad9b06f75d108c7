// How well the demo model does, against what its own script measured in float64 (models/demo/figures.json).
import { expect, test } from 'vitest'
import { type Choice, induction, ioi } from '../../src/index.js'
import { COUNTRIES, isHeldOut, LANDMARKS, NAMES, OBJECTS, PLACES, TEMPLATES } from '../demo-language.js'
import { DEMO, DEMO_PROMPT, open, readJson, refusal } from '../helpers.js'

const figures = readJson<{
  readonly facts: { top1: number; probability: number; attribution_total: number; facts: number }
  readonly indirect_object: { two_names: { accuracy: number; logit_difference: number } }
  readonly induction: { top1: number }
  readonly demo: { logit_difference: number; probability: number }
}>(DEMO, 'figures.json')

test('one prompt: the difference and the probability of the model card', async () => {
  const model = await open(DEMO)
  const { items, ...means } = await model.evaluate([DEMO_PROMPT], { answer: ' Mary', against: ' John' })
  expect(items[0]).toMatchObject({ correct: true, top1: true, predictedText: 'Mary' })
  expect(items[0]?.difference).toBeCloseTo(figures.demo.logit_difference, 3)
  expect(items[0]?.probability).toBeCloseTo(figures.demo.probability, 3)
  expect(means.logitDifference.mean).toBeCloseTo(figures.demo.logit_difference, 3)
  expect(means.logitDifference).toMatchObject({ std: 0, interval: [items[0]?.difference, items[0]?.difference] })
})

test('the 90 facts against the vocabulary mean: every figure of the model card', async () => {
  const model = await open(DEMO)
  const asked = [
    ...LANDMARKS.flatMap(([landmark, city]) => [
      [`The ${landmark} is in the city of`, city],
      [`The ${landmark} can be found in`, city],
    ]),
    ...COUNTRIES.map(({ country, capital }) => [`The capital of ${country} is`, capital]),
    ...COUNTRIES.map(({ country, language }) => [`The language of ${country} is`, language]),
  ]
  expect(asked).toHaveLength(figures.facts.facts)
  const choices = asked.map(([, answer]): Choice => ({ answer: ` ${answer}`, against: 'mean' }))
  const prompts = asked.map(([prompt = '']) => prompt)
  const found = await model.evaluate(prompts, choices)
  expect(found.top1.mean).toBe(figures.facts.top1)
  expect(found.probability.mean).toBeCloseTo(figures.facts.probability, 3)
  expect(found.logitDifference.mean).toBeCloseTo(figures.facts.attribution_total, 3)
  expect(found).toHaveLength(90)
})

test('IOI in sentences of its training, names that never stood together: as its card says', async () => {
  const model = await open(DEMO)
  const data = ioi(model, { n: 4000, names: NAMES, places: PLACES, objects: OBJECTS, templates: TEMPLATES })
  expect(data.leftOut).toEqual([])
  const held = data.items.filter(({ words }) => isHeldOut(words.IO ?? '', words.S1 ?? ''))
  expect(held.length).toBeGreaterThan(300)
  const found = await model.evaluate(held.map(({ prompt }) => prompt), held.map(({ target }) => target)) // prettier-ignore
  const { accuracy, logit_difference: difference } = figures.indirect_object.two_names // 100 %, 11.66 of 500 others
  expect(found.accuracy.mean).toBeGreaterThan(accuracy - 0.01)
  expect(Math.abs(found.logitDifference.mean - difference)).toBeLessThan(0.5)
  // a bootstrap of a mean of hundreds is close to the normal one
  const { std, interval } = found.logitDifference
  const normal = (2 * 1.96 * std) / Math.sqrt(held.length)
  expect((interval[1] - interval[0]) / normal).toBeGreaterThan(0.85)
  expect((interval[1] - interval[0]) / normal).toBeLessThan(1.15)
})

test('its twins: three names of which none is repeated leave chance', async () => {
  const model = await open(DEMO)
  const data = ioi(model, { n: 600, names: NAMES, places: PLACES, objects: OBJECTS, templates: TEMPLATES })
  const twins = await model.evaluate(data, { corrupted: true })
  const [low, high] = twins.logitDifference.interval
  expect([twins.corrupted, low < 0.5, high > -0.5]).toEqual([true, true, true])
  expect(twins.top1.mean).toBe(0)
  // standard deviation of a fair coin over 600: 2 %
  expect(Math.abs(twins.accuracy.mean - 0.5)).toBeLessThan(0.08)
})

test('repeated tokens: the likeliest next one, as often as its card says; never without repetition', async () => {
  const model = await open(DEMO)
  const data = induction(model, { n: 400, length: 20 })
  // of all positions in the second copy 99.8 %; of its last one alone
  expect((await model.evaluate(data)).top1.mean).toBeGreaterThan(figures.induction.top1 - 0.01)
  expect((await model.evaluate(data, { corrupted: true })).top1.mean).toBeLessThan(0.01)
})

test('item by item: what attribute measured, and shares of a softmax by hand', async () => {
  const model = await open(DEMO)
  const data = ioi(model, { n: 7 })
  const found = await model.evaluate(data)
  const { measured } = await model.attribute(data.prompts, data.targets)
  using run = await model.run(data.prompts, { logits: 'last' })
  found.items.forEach((item, i) => {
    expect(item.difference).toBeCloseTo(measured[i] ?? Number.NaN, 4)
    expect(item.correct).toBe((measured[i] ?? 0) > 0)
    const weights = [...run.logits(i).data].map(Math.exp)
    const total = weights.reduce((a, b) => a + b, 0)
    const { answer, against } = data.targets[i] as { answer: number; against: number }
    expect(item.probability).toBeCloseTo((weights[answer] ?? 0) / total, 6)
    expect(item.probabilityDifference).toBeCloseTo(((weights[answer] ?? 0) - (weights[against] ?? 0)) / total, 6)
    expect(weights[item.predicted]).toBe(Math.max(...weights))
    expect(item.top1).toBe(item.predicted === answer)
  })
  const mean = found.items.reduce((sum, { difference }) => sum + difference, 0) / 7
  expect(found.logitDifference.mean).toBeCloseTo(mean, 5)
})

test('several tokens: means of logits, sums of probabilities', async () => {
  const model = await open(DEMO)
  const [mary, john, anna] = ['Mary', 'John', 'Anna'].map((name) => model.tokenizer?.tokenToId(name) ?? 0) as [
    number,
    number,
    number,
  ]
  const found = await model.evaluate([DEMO_PROMPT], { answer: [' Mary', ' Anna'], against: [john] })
  const each = await model.evaluate([DEMO_PROMPT, DEMO_PROMPT], [mary, anna].map((answer) => ({ answer, against: john }))) // prettier-ignore
  const [first, second] = each.items
  expect(found.items[0]?.difference).toBeCloseTo(((first?.difference ?? 0) + (second?.difference ?? 0)) / 2, 5)
  expect(found.items[0]?.probability).toBeCloseTo((first?.probability ?? 0) + (second?.probability ?? 0), 6)
  expect(found.items[0]?.top1).toBe(true)
})

test('many prompts go through in batches, in order, with progress; the same seed gives the same interval', async () => {
  const model = await open(DEMO)
  const data = ioi(model, { n: 600 }) // more than one batch of 256
  const progress: number[] = []
  const found = await model.evaluate(data, { onProgress: ({ done }) => progress.push(done), seed: 4 })
  expect(progress).toEqual([256, 512, 600])
  const last = data.items.at(-1)
  if (!last) throw new Error('no item')
  const [alone] = (await model.evaluate([last.text], last.target)).items
  expect(found.items.at(-1)?.difference).toBeCloseTo(alone?.difference ?? Number.NaN, 4)
  expect((await model.evaluate(data, { seed: 4 })).accuracy).toEqual(found.accuracy)
  expect((await model.evaluate(data, { seed: 5 })).logitDifference.interval).not.toEqual(found.logitDifference.interval)
})

test('what is refused', async () => {
  const model = await open(DEMO)
  const ask = (choice: unknown, options: object = {}) => model.evaluate([DEMO_PROMPT], choice as Choice, options)
  const choice = { answer: ' Mary', against: ' John' }
  await refusal('UNKNOWN_OPTION', () => ask(choice, { position: 'all' }))
  await refusal('UNKNOWN_OPTION', () => ask({ ...choice, direction: 1 }))
  await refusal('INVALID_ARGUMENT', () => ask(choice, { corrupted: true }))
  await refusal('INVALID_ARGUMENT', () => ask({ answer: ' Mary' }))
  await refusal('INVALID_ARGUMENT', () => ask({ answer: 'predicted', against: ' John' }))
  await refusal('INVALID_ARGUMENT', () => ask({ answer: [], against: ' John' }))
  await refusal('INVALID_ARGUMENT', () => ask([choice, choice]))
  await refusal('INVALID_ARGUMENT', () => model.evaluate([], choice))
  await refusal('TOKEN_RANGE', () => ask({ answer: 342, against: 1 }))
  const { details } = await refusal('NOT_ONE_TOKEN', () => ask({ answer: ' Mary Anna', against: ' John' }))
  expect(details).toMatchObject({ text: ' Mary Anna', pieces: ['Mary', 'Anna'] })
  await refusal('INVALID_ARGUMENT', () => model.evaluate(ioi(model, { n: 1 }), { prependBos: true })) // ids are run as they are
  const stopped = AbortSignal.abort()
  await refusal('ABORTED', () => ask(choice, { signal: stopped }))
})
