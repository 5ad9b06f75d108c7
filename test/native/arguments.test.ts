// Options of the calls behind an attribution: what is wrong is refused, and says what would be right. How they behave:
// inputs copied, the event loop free, progress, abort.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Model, type Progress } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, refusal } from '../helpers.js'

let model: Model
beforeAll(async () => {
  model = await Model.load(DEMO)
})
afterAll(() => model.close())

const PROMPTS = [DEMO_PROMPT]
const V = new Float32Array(96).fill(0.5)

/** Every call over prompts, with these options. */
const CALLS: Record<string, (options: object, prompts?: unknown) => Promise<unknown>> = {
  attribute: (options, prompts = PROMPTS) => model.attribute(prompts as string[], DEMO_TARGET, options),
  attributeSources: (options, prompts = PROMPTS) => model.attributeSources(prompts as string[], DEMO_TARGET, options),
  logitLens: (options, prompts = PROMPTS) => model.logitLens(prompts as string[], { top: 3, ...options }),
  topTokens: (options, prompts = PROMPTS) => model.topTokens(prompts as string[], options),
  attributeDirections: (options, prompts = PROMPTS) => model.attributeDirections(prompts as string[], V, options),
  run: (options, prompts = PROMPTS) => model.run(prompts as string[], { cache: ['hook_embed'], ...options }),
}

describe.each(Object.entries(CALLS))('%s', (_, call) => {
  test('a misspelt option names the nearest', async () => {
    expect((await refusal('UNKNOWN_OPTION', () => call({ postion: 'all' }))).details).toMatchObject({
      name: 'postion',
      nearest: ['position'],
    })
    await refusal('INVALID_ARGUMENT', () => call({ position: 'first' }))
  })

  test.each([
    [{ position: 1.5 }],
    [{ position: { perPrompt: [0] } }],
    [{ prependBos: 1 }],
    [{ batchTokens: 0 }],
    [{ batchTokens: '9' }],
    [{ signal: {} }],
    [{ onProgress: true }],
  ])('%j is refused', async (options) => {
    await refusal('INVALID_ARGUMENT', () => call(options))
  })

  test('prompts are a list; positions are in it', async () => {
    await refusal('INVALID_ARGUMENT', () => call({}, 'text'))
    await refusal('PROMPT_EMPTY', () => call({}, [[]]))
    await refusal('TOKEN_RANGE', () => call({}, [[342]]))
    await refusal('POSITION_RANGE', () => call({ position: 99 }))
  })

  test('an abort before and during, with its reason', async () => {
    expect((await refusal('ABORTED', () => call({ signal: AbortSignal.abort('before') }))).cause).toBe('before')
    const many = Array.from({ length: 3000 }, (__, i) => Uint32Array.from({ length: 40 }, (___, t) => (i * 37 + t * 11) % 342))
    const controller = new AbortController()
    const running = call({ signal: controller.signal }, many)
    setTimeout(() => controller.abort('during'), 10)
    expect((await refusal('ABORTED', () => running)).cause).toBe('during')
  })

  test('progress rises to the number of prompts; what it throws stops the call', async () => {
    const many = Array.from({ length: 400 }, (__, i) => Uint32Array.from({ length: 20 }, (___, t) => (i * 37 + t * 11) % 342))
    const seen: Progress[] = []
    await call({ onProgress: (progress: Progress) => seen.push(progress) }, many)
    const done = seen.map((progress) => progress.done)
    expect(done).toEqual([...done].sort((a, b) => a - b))
    expect(seen.at(-1)).toEqual({ done: 400, total: 400 })
    const mine = new Error('mine')
    const throwing = () => {
      throw mine
    }
    await expect(call({ onProgress: throwing }, many)).rejects.toBe(mine)
  })

  test('the event loop runs on, and inputs are copied', async () => {
    const list = Array.from({ length: 400 }, (__, i) => Uint32Array.from({ length: 24 }, (___, t) => (i * 37 + t * 11) % 342))
    const prompts = list.map((ids) => ids.slice())
    let ticks = 0
    const timer = setInterval(() => ticks++, 1)
    const running = call({}, prompts)
    prompts.forEach((ids) => ids.fill(3))
    prompts.length = 0
    const result = (await running) as { nPrompts: number; ids(i: number): Uint32Array }
    clearInterval(timer)
    expect(ticks).toBeGreaterThan(2)
    expect([result.nPrompts, result.ids(7)]).toEqual([400, list[7]])
  })
})

test.each([
  [{ unit: 'neurons' }],
  [{ unit: null }],
  [{ top: 0, unit: 'neuron' }],
  [{ top: 1.5, unit: 'neuron' }],
  [{ top: 3 }],
  [{ convention: 'ours' }],
  [{ norm: 'recomputed' }],
  [{ onViolation: 'ignore' }],
])('attribute: %j is refused', async (options) => {
  await refusal('INVALID_ARGUMENT', () => CALLS['attribute']?.(options))
})

test('sources: heads are heads of the model, each once', async () => {
  const near = await refusal('INVALID_ARGUMENT', () => CALLS['attributeSources']?.({ heads: ['L3H9'] }))
  expect(near.message).toContain('L3H')
  for (const heads of [[], 'L3H1', [31], ['L3 mlp'], ['L3H01'], ['L9H0'], null]) {
    await refusal('INVALID_ARGUMENT', () => CALLS['attributeSources']?.({ heads }))
  }
  await refusal('UNKNOWN_OPTION', () => CALLS['attributeSources']?.({ unit: 'head' }))
})

test('the lens wants targets or top', async () => {
  await refusal('INVALID_ARGUMENT', () => model.logitLens(PROMPTS, {}))
  for (const options of [{ top: 0 }, { top: 343 }, { top: '3' }, { norm: 'none' }, { targets: [] }, { targets: null }]) {
    await refusal('INVALID_ARGUMENT', () => CALLS['logitLens']?.(options))
  }
  const all = await model.logitLens(PROMPTS, { top: 342 })
  expect(new Set(all.row(0)[0]?.top?.map(({ id }) => id)).size).toBe(342)
})

test('moved tokens: components, k, masks', async () => {
  for (const options of [{ k: 0 }, { k: 343 }, { k: 2.5 }, { unit: 'tokens' }, { components: [] }, { components: 'L3H1' }]) {
    await refusal('INVALID_ARGUMENT', () => CALLS['topTokens']?.(options))
  }
  const near = await refusal('INVALID_ARGUMENT', () => CALLS['topTokens']?.({ components: ['L3H7'] }))
  expect(near.message).toContain('L3H')
  await refusal('INVALID_ARGUMENT', () => CALLS['topTokens']?.({ components: ['L3H1'], unit: 'layer' }))
  for (const mask of ['specials', [1.5], ['no such token at all'], {}, null]) {
    await refusal('INVALID_ARGUMENT', () => CALLS['topTokens']?.({ mask }))
  }
  await refusal('TOKEN_RANGE', () => CALLS['topTokens']?.({ mask: [342] }))
  const some = await model.topTokens(PROMPTS, { components: ['L3H1', 'embed'], k: 3 })
  const best = some.get(0, 'L3H1').raised
  const without = await model.topTokens(PROMPTS, { components: ['L3H1'], k: 2, mask: [best[0]?.id ?? -1] })
  expect(without.get(0, 'L3H1').raised.map(({ id }) => id)).toEqual(best.slice(1).map(({ id }) => id))
  const special = await model.topTokens(PROMPTS, { k: 300, mask: 'special' })
  const listed = special.row(0).flatMap(({ raised }) => raised.map(({ id }) => id))
  expect(listed.length).toBeGreaterThan(300)
  expect(listed).not.toContain(model.config.bosToken)
})

test('directions: of the model’s width, at points of the stream', async () => {
  const wrong = [
    new Float32Array(95),
    new Float32Array(0),
    [],
    [new Float32Array(95)],
    [V, new Float32Array(95)],
    [[1, 2]],
    'v',
    null,
    new Float64Array(96),
  ]
  for (const directions of wrong) {
    await refusal('INVALID_ARGUMENT', () => model.attributeDirections(PROMPTS, directions as Float32Array))
  }
  for (const at of ['blocks.0.hook_attn_out', 'hook_embed', 'ln_final.hook_normalized', 5, 'blocks.*.hook_resid_pre']) {
    const outcome = await model
      .attributeDirections(PROMPTS, V, { at: at as 'blocks.0.hook_resid_pre' })
      .catch((error: unknown) => error)
    expect(outcome, String(at)).toMatchObject({ code: expect.stringMatching(/^(INVALID_ARGUMENT|UNKNOWN_HOOK)$/) })
  }
  const near = await refusal('UNKNOWN_HOOK', () => model.attributeDirections(PROMPTS, V, { at: 'blocks.9.hook_resid_pre' }))
  expect(near.details['nearest']).not.toEqual([])
  await refusal('INVALID_ARGUMENT', () => CALLS['attributeDirections']?.({ unit: 'neuron' }))
  const nan = new Float32Array(96).fill(Number.NaN)
  await refusal('INVALID_ARGUMENT', () => model.attributeDirections(PROMPTS, nan))
})

test('directions are copied at entry', async () => {
  const mine = V.slice()
  const expected = await model.attributeDirections(PROMPTS, V)
  const running = model.attributeDirections(PROMPTS, mine)
  mine.fill(9)
  expect((await running).values).toEqual(expected.values)
})

test('attributionHooks and components are checked, and are one list', async () => {
  await refusal('UNKNOWN_OPTION', () => model.attributionHooks({ units: 'head' } as object))
  await refusal('INVALID_ARGUMENT', () => model.attributionHooks({ unit: 'heads' as 'head' }))
  await refusal('INVALID_ARGUMENT', () => model.components('heads' as 'head'))
  const components = model.components('neuron')
  expect([components, Object.isFrozen(components)]).toEqual([model.components('neuron'), true])
  expect((await model.attribute(PROMPTS, DEMO_TARGET, { unit: 'neuron' })).components).toBe(components)
  const gptj = await open(fixture('parity/gptj'))
  expect(gptj.attributionHooks().every((name) => gptj.hookNames.includes(name))).toBe(true)
})
