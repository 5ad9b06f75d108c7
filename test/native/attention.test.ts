// Patterns against float64, and names against heads that were written by hand (test/planted.ts) or measured by another
// program (models/demo/figures.json).
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type HeadPattern, Model, type PatternType } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, expectClose, fixture, open, readJson, refusal, safetensors } from '../helpers.js'
import { PLANTED, plantHeads, STOP } from '../planted.js'

describe('patterns', () => {
  test.each(readdirSync(fixture('parity')))('%s: those of transformers, every head', async (family) => {
    const directory = fixture(`parity/${family}`)
    const { prompts } = readJson<{ prompts: number[][] }>(directory, 'reference.json')
    const { tensors } = safetensors(join(directory, 'hooks.safetensors'))
    const model = await open(directory)
    const attention = await model.attention(prompts)
    const { nLayers, nHeads } = model.config
    const n = prompts[0]?.length ?? 0
    expect(attention.heads).toHaveLength(nLayers * nHeads)
    for (let layer = 0; layer < nLayers; layer++) {
      const reference = tensors.get(`0/blocks.${layer}.attn.hook_pattern`)
      expect(reference?.shape).toEqual([nHeads, n, n])
      for (let head = 0; head < nHeads; head++) {
        const pattern = attention.pattern(layer, head, 0)
        expect([pattern.dims, pattern.shape]).toEqual([
          ['query_pos', 'key_pos'],
          [n, n],
        ])
        expectClose(pattern.data, reference?.data.slice(head * n * n, (head + 1) * n * n) ?? [], `L${layer}H${head}`)
      }
    }
  })

  test('the heads that were asked for, in the order of the model; a copy, with ids and tokens', async () => {
    const model = await open(DEMO)
    const all = await model.attention([DEMO_PROMPT, 'Mary and John'])
    const some = await model.attention([DEMO_PROMPT, 'Mary and John'], { heads: ['L3H1', 'L0H2'] })
    expect([all.nPrompts, some.heads]).toEqual([2, ['L0H2', 'L3H1']])
    for (const prompt of [0, 1]) expect(some.pattern(3, 1, prompt)).toEqual(all.pattern(3, 1, prompt))
    expect(some.tokens(1)).toEqual(['<bos>', 'Mary', 'and', 'John'])
    expect(some.ids(1)).toEqual(model.tokenizer?.encode('Mary and John'))
    const pattern = some.pattern(3, 1, 1)
    pattern.data.fill(7)
    expect(some.pattern(3, 1, 1).data).not.toContain(7)
    const error = await refusal('INVALID_ARGUMENT', () => some.pattern(3, 2, 0))
    expect(error.details).toMatchObject({ name: 'L3H2', nearest: expect.arrayContaining(['L3H1']) })
    await refusal('INVALID_ARGUMENT', () => some.pattern(3, 1, 2))
    await refusal('INVALID_ARGUMENT', () => some.ids(2))
  })

  test('as JSON and in one line', async () => {
    const model = await open(DEMO)
    const attention = await model.attention(['Mary'], { heads: ['L0H0'], prependBos: false })
    const { provenance, ...rest } = JSON.parse(JSON.stringify(attention))
    expect(provenance).toMatchObject({ family: 'gpt2' })
    expect(rest).toEqual({
      kind: 'observed',
      heads: ['L0H0'],
      prompts: [{ ids: [...attention.ids(0)], tokens: ['Mary'], patterns: { L0H0: [1] } }],
    })
  })

  test('they stay when the model is closed; naming heads needs it', async () => {
    const model = await Model.load(DEMO)
    const attention = await model.attention([DEMO_PROMPT], { heads: ['L3H1'] })
    await model.close()
    expect(attention.pattern(3, 1, 0).at(14, 2)).toBeCloseTo(0.998, 2.9)
    await refusal('CLOSED', () => attention.classify())
    await refusal('CLOSED', () => model.attention([DEMO_PROMPT]))
    await refusal('CLOSED', () => model.detectHeads())
  })
})

describe('heads that were written by hand', () => {
  let model: Model
  const directory = mkdtempSync(join(tmpdir(), 'logit-prism-planted-'))
  beforeAll(async () => {
    plantHeads(directory)
    model = await Model.load(directory)
  })
  afterAll(async () => {
    await model.close()
    rmSync(directory, { recursive: true })
  })

  const named = async (...prompts: string[]) => {
    const found = await (await model.attention(prompts)).classify()
    return Object.fromEntries(found.map((head) => [head.label, head])) as Record<keyof typeof PLANTED, HeadPattern>
  }
  const types = (heads: Record<string, HeadPattern>) =>
    Object.fromEntries(Object.values(heads).map(({ label, type }) => [label, type]))

  const REPEATED = 'a b c d e f g h . i j k l m n a b c d e f g h . i j k l'
  const STOPS = 'a b c . d e f g h . i j k l m n'
  const DISTINCT = 'a b c d e f g h i j k l m n o p q r s t'

  test('every name is right', async () => {
    const found = await named(REPEATED, STOPS, DISTINCT)
    expect(types(found)).toEqual(PLANTED)
    for (const [label, type] of Object.entries(PLANTED)) {
      const { scores, margin } = found[label as keyof typeof PLANTED]
      expect(scores[type].score, label).toBeCloseTo(1, 5)
      expect(scores[type].strength, label).toBeCloseTo(1, 5)
      if (type !== 'uniform') expect(margin, label).toBeGreaterThan(0.1)
    }
    expect(found.L0H1.column).toEqual({ token: STOP, text: '.' })
  })

  test('induction is where they look: behind the first occurrence', async () => {
    const attention = await model.attention([[0, 10, 11, 12, 13, 10, 11]])
    for (const head of [0, 1]) {
      const pattern = attention.pattern(1, head, 0)
      expect(pattern.at(5, 2)).toBeCloseTo(1, 6)
      expect(pattern.at(6, 3)).toBeCloseTo(1, 6)
      expect(pattern.at(4, 0)).toBeCloseTo(1, 6) // nothing repeats yet
    }
  })

  test('the same pattern says nothing about what is moved', async () => {
    const ids = [0, 10, 11, 12, 13, 10]
    const result = await model.attribute([ids], { answer: 11, against: 'mean' })
    const [copies, opposes] = [result.row(0).value('L1H0'), result.row(0).value('L1H1')]
    expect(copies).toBeGreaterThan(1)
    expect(opposes).toBeCloseTo(-copies, 4)
    const [first, second] = await (await model.attention([ids], { heads: ['L1H0', 'L1H1'] })).classify()
    expect(second?.scores).toEqual(first?.scores)
  })

  test('without a repeated token nothing is called induction: those heads rest on the first token', async () => {
    const found = await named(DISTINCT)
    for (const label of ['L1H0', 'L1H1', 'L2H1'] as const) {
      expect(found[label].type).toBe('first')
      expect(found[label].scores.induction).toEqual({ score: Number.NaN, null: Number.NaN, strength: Number.NaN, queries: 0 })
    }
    expect(found.L0H1.type).toBe('first') // nor is there a full stop
    expect(found.L0H1.scores.column.strength).toBeLessThan(0.1)
    expect(found.L0H0.type).toBe('previousToken')
  })

  test('tokens of one kind have the name of the kind', async () => {
    const found = await named('a b c . d e f g , h i j k l m n o')
    expect([found.L0H1.type, found.L0H1.column]).toEqual(['column', { class: 'punctuation' }])
  })

  test('what chance gives, by hand: a head that looks everywhere alike', async () => {
    const { L2H0 } = await named(DISTINCT)
    const mean = (from: number, of: (q: number) => number) => {
      const list = Array.from({ length: 21 - from }, (_, i) => of(from + i))
      return { value: list.reduce((sum, value) => sum + value, 0) / list.length, queries: list.length }
    }
    // 21 tokens with BOS. Query 1 has no previous token but the first, and the first says nothing of it
    const expected: [PatternType, ReturnType<typeof mean>][] = [
      ['previousToken', mean(2, (q) => 1 / (q + 1))],
      ['self', mean(1, (q) => 1 / (q + 1))],
      ['first', mean(2, (q) => 1 / (q + 1))],
    ]
    for (const [type, { value, queries }] of expected) {
      const score = L2H0.scores[type]
      expect(score.queries, type).toBe(queries)
      expect(score.null, type).toBeCloseTo(value, 10)
      expect(score.score, type).toBeCloseTo(value, 6)
      expect(score.strength, type).toBeCloseTo(0, 6)
    }
    expect(L2H0.scores.uniform).toMatchObject({ null: 1, queries: 20 })
  })

  test('on random tokens: each test finds its heads and no other', async () => {
    const found = await model.detectHeads({ seed: 3 })
    const passing = (test: 'induction' | 'duplicateToken' | 'previousToken') =>
      found.filter((head) => head[test].detected).map(({ label }) => label)
    expect(passing('induction')).toEqual(['L1H0', 'L1H1'])
    expect(passing('duplicateToken')).toEqual(['L2H1'])
    expect(passing('previousToken')).toEqual(['L0H0'])
    const [prefix, duplicate, before] = [found[2]?.induction, found[5]?.duplicateToken, found[0]?.previousToken]
    for (const test of [prefix, duplicate, before]) {
      expect(test?.score).toBeCloseTo(1, 5)
      expect(test?.null).toBeCloseTo(0, 5)
      expect(test?.p).toBeLessThan(1e-10)
    }
    const flat = found[4]
    // BOS and twice 13 tokens: the queries are 14 to 26, and query q gives every key 1 / (q + 1)
    const alike = Array.from({ length: 13 }, (_, i) => 1 / (i + 15)).reduce((sum, value) => sum + value, 0) / 13
    expect(flat?.induction.score).toBeCloseTo(alike, 6)
    expect(flat?.induction).toMatchObject({ p: 1, detected: false })
  })
})

describe('the demo model', () => {
  const { head_scores: measured } = readJson<{ head_scores: Record<'induction' | 'previous_token', Record<string, number>> }>(
    DEMO,
    'figures.json',
  )

  test('induction heads as evaluate.py measured them', async () => {
    const model = await open(DEMO)
    const found = await model.detectHeads({ length: 20, sequences: 100 })
    expect(found.map(({ label }) => label)).toEqual(Object.keys(measured.induction))
    for (const { label, induction } of found) {
      expect(Math.abs(induction.score - (measured.induction[label] ?? Number.NaN)), label).toBeLessThan(0.03)
      expect(induction.detected, label).toBe((measured.induction[label] ?? 0) > 0.3)
    }
    expect(found.filter(({ duplicateToken }) => duplicateToken.detected)).toEqual([])
    expect(found.filter(({ previousToken }) => previousToken.detected).map(({ label }) => label)).toEqual(['L0H2'])
  })

  test('named on random words that repeat', async () => {
    const model = await open(DEMO)
    const words = Array.from({ length: 30 }, (_, i) => 10 + 11 * i)
    const attention = await model.attention([[0, ...words, ...words]])
    const named = new Map((await attention.classify()).map((head) => [head.label, head]))
    for (const label of ['L1H1', 'L1H2', 'L1H3']) expect(named.get(label)?.type, label).toBe('induction')
    expect(named.get('L0H2')?.type).toBe('previousToken')
    // the mean over the queries that count, from the pattern itself: none that repeats a token sees it one before
    const pattern = attention.pattern(0, 2, 0)
    const onPrevious = Array.from({ length: 59 }, (_, i) => pattern.at(i + 2, i + 1))
    const score = onPrevious.reduce((sum, value) => sum + value, 0) / 59
    expect(named.get('L0H2')?.scores.previousToken).toMatchObject({ score: expect.closeTo(score, 6), queries: 59 })
  })

  test('seeds, levels and thresholds', async () => {
    const model = await open(DEMO)
    const [a, again, b] = [await model.detectHeads(), await model.detectHeads({ seed: 0 }), await model.detectHeads({ seed: 1 })]
    expect(again).toEqual(a)
    expect(b).not.toEqual(a)
    const detected = (heads: typeof a) => heads.map(({ induction }) => induction.detected)
    expect(detected(b)).toEqual(detected(a))
    expect(detected(a).filter(Boolean)).toHaveLength(4)
    expect(detected(await model.detectHeads({ level: 0 })).filter(Boolean)).toEqual([])
    const strong = await model.detectHeads({ threshold: 0.6 })
    expect(strong.filter(({ induction }) => induction.detected).map(({ label }) => label)).toEqual(['L1H1', 'L1H2', 'L1H3'])
  })

  test('of fewer heads each counts for more: p is times the number of tests', async () => {
    const model = await open(DEMO)
    const [alone] = await model.detectHeads({ heads: ['L2H0'] })
    const among = (await model.detectHeads()).find(({ label }) => label === 'L2H0')
    expect(alone?.induction.score).toBe(among?.induction.score)
    expect((among?.induction.p ?? 0) / (alone?.induction.p ?? 0)).toBeCloseTo(16, 6)
  })
})

describe('arguments', () => {
  test.each([
    [{ heads: [] }],
    [{ heads: 'L0H0' }],
    [{ heads: ['L9H0'] }],
    [{ heads: ['L0 mlp'] }],
    [{ heads: ['L0H0', 'L0H0'] }],
    [{ prependBos: 'yes' }],
    [{ signal: {} }],
    [{ onProgress: 1 }],
  ])('attention: %j is refused', async (options) => {
    const model = await open(DEMO)
    await refusal('INVALID_ARGUMENT', () => model.attention([DEMO_PROMPT], options as object))
  })

  test.each([
    [{ sequences: 1 }],
    [{ length: 1 }],
    [{ length: 32 }],
    [{ length: 2.5 }],
    [{ seed: -1 }],
    [{ level: 2 }],
    [{ level: Number.NaN }],
    [{ threshold: -0.1 }],
    [{ heads: ['L0H9'] }],
  ])('detectHeads: %j is refused', async (options) => {
    const model = await open(DEMO)
    await refusal('INVALID_ARGUMENT', () => model.detectHeads(options))
  })

  test('misspelt options, prompts that are none, aborts', async () => {
    const model = await open(DEMO)
    const misspelt = await refusal('UNKNOWN_OPTION', () => model.attention(['a'], { head: ['L0H0'] } as object))
    expect(misspelt.details).toMatchObject({ nearest: ['heads'] })
    expect((await refusal('UNKNOWN_OPTION', () => model.detectHeads({ levle: 1 } as object))).details).toMatchObject({
      nearest: ['level'],
    })
    await refusal('INVALID_ARGUMENT', () => model.attention('text' as never))
    await refusal('PROMPT_EMPTY', () => model.attention([[]]))
    await refusal('TOKEN_RANGE', () => model.attention([[342]]))
    await refusal('ABORTED', () => model.attention([DEMO_PROMPT], { signal: AbortSignal.abort() }))
    await refusal('ABORTED', () => model.detectHeads({ signal: AbortSignal.abort() }))
  })
})

test('detectHeads says nothing where a window hides the keys in question', async () => {
  const model = await open(fixture('parity/mistral')) // windows of 4
  for (const { induction, duplicateToken } of await model.detectHeads({ length: 12, sequences: 4 })) {
    expect([induction.score, induction.p, duplicateToken.p]).toEqual([NaN, NaN, NaN])
    expect(induction.detected).toBe(false)
  }
  for (const { induction } of await model.detectHeads({ length: 4, sequences: 4 })) expect(induction.p).not.toBeNaN()
})

test('classify takes no options', async () => {
  const model = await open(fixture('parity/gpt2'))
  const attention = await model.attention([[1, 2, 3]])
  await refusal('UNKNOWN_OPTION', () => attention.classify({ position: 'last' } as never))
})
