import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Tokenizer } from '../../src/index.js'
import { DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, readJson, refusal, spoiled } from '../helpers.js'

const { model: file } = readJson<{ model: { vocab: Record<string, number> } }>(DEMO, 'tokenizer.json')
const id = (word: string) => file.vocab[word] ?? Number.NaN
const WORDS = ['When', 'Mary', 'and', 'John', 'went', 'to', 'the', 'store', ',', 'John', 'gave', 'a', 'drink', 'to']

async function tokenizer(): Promise<Tokenizer> {
  const { tokenizer } = await open(DEMO)
  if (!tokenizer) throw new Error('no tokenizer')
  return tokenizer
}

test('a text becomes the ids of its words behind a BOS token', async () => {
  const { encode } = await bound()
  expect([...encode(DEMO_PROMPT)]).toEqual([0, ...WORDS.map(id)])
  expect([...encode(DEMO_PROMPT, { prependBos: true })]).toEqual([0, ...WORDS.map(id)])
  expect([...encode(DEMO_PROMPT, { prependBos: false })]).toEqual(WORDS.map(id))
  expect([...encode('')]).toEqual([0])
  expect([...encode('', { prependBos: false })]).toEqual([])
  expect([...encode('Mary xylophone', { prependBos: false })]).toEqual([id('Mary'), id('<unk>')])
})

test.each(['llama2_old', 'llama3', 'unigram_charsmap', 'wordpiece'])(
  'ids and texts of %s are those of transformers',
  async (name) => {
    const { kind, files, rows } = readJson<Case>(fixture('tokenizers'), `cases/${name}.json`)
    const samples = readJson<string[]>(fixture('tokenizers'), 'samples.json')
    const directory = mkdtempSync(join(tmpdir(), 'tokenizer-'))
    try {
      cpSync(fixture('gpt2'), directory, { recursive: true })
      cpSync(join(fixture('tokenizers'), 'files', `${kind}.json`), join(directory, 'tokenizer.json'))
      writeFileSync(join(directory, 'tokenizer_config.json'), JSON.stringify(files['tokenizer_config.json']))
      const { tokenizer } = await open(directory)
      const found = samples.map((text) => [...(tokenizer?.encode(text) ?? [])])
      expect(found).toEqual(rows.map(({ front, ids }) => [...front, ...ids]))
      expect(found.map((ids) => tokenizer?.decode(ids))).toEqual(rows.map(({ decoded }) => decoded))
    } finally {
      rmSync(directory, { recursive: true })
    }
  },
)

interface Case {
  readonly kind: string
  readonly files: Record<string, object>
  readonly rows: readonly { front: number[]; ids: number[]; decoded: string }[]
}

/** The methods, so that a test reads as a list of calls. */
async function bound() {
  const it = await tokenizer()
  return { encode: it.encode.bind(it), decode: it.decode.bind(it) }
}

test('ids become text, special tokens included', async () => {
  const { encode, decode } = await bound()
  expect(decode([id('Mary')])).toBe('Mary')
  expect(decode([0, id('Mary'), id('gave')])).toBe('<bos> Mary gave')
  expect(decode(Uint32Array.of(id('Paris')))).toBe('Paris')
  expect(decode([])).toBe('')
  const ids = encode('The capital of Japan is', { prependBos: false })
  expect([...encode(decode(ids), { prependBos: false })]).toEqual([...ids])
})

test('entries and ids', async () => {
  const it = await tokenizer()
  expect([it.tokenToId('Mary'), it.tokenToId('<bos>'), it.tokenToId(' Mary'), it.tokenToId('xylophone')]).toEqual([
    id('Mary'),
    0,
    undefined,
    undefined,
  ])
  expect([it.idToToken(0), it.idToToken(id('store')), it.idToToken(342)]).toEqual(['<bos>', 'store', undefined])
  expect(it.unknownToken).toBe(id('<unk>'))
})

test.each([[3], [null], [undefined], [['a']]])('only texts are encoded, not %j', async (text) => {
  const it = await tokenizer()
  await refusal('INVALID_ARGUMENT', () => it.encode(text as unknown as string))
  await refusal('INVALID_ARGUMENT', () => it.tokenToId(text as unknown as string))
})

test.each([['Mary'], [[-1]], [[0.5]], [[2 ** 32]], [null], [['0']]])('only ids are decoded, not %j', async (ids) => {
  const it = await tokenizer()
  await refusal('INVALID_ARGUMENT', () => it.decode(ids as number[]))
})

test.each([[-1], [0.5], ['0'], [undefined]])('an id is a whole number, not %j', async (one) => {
  const it = await tokenizer()
  await refusal('INVALID_ARGUMENT', () => it.idToToken(one as number))
})

test('the options of encode are checked', async () => {
  const it = await tokenizer()
  const error = await refusal('UNKNOWN_OPTION', () => it.encode('Mary', { prependBOS: false } as object))
  expect(error.details['nearest']).toEqual(['prependBos'])
})

test.each([['no'], [0], [null]])('prependBos of encode is a flag, not %j', async (prependBos) => {
  const it = await tokenizer()
  await refusal('INVALID_ARGUMENT', () => it.encode('Mary', { prependBos: prependBos as unknown as boolean }))
})

test('prompts: text with and without a BOS token, and ids verbatim', async () => {
  const model = await open(DEMO)
  const ids = WORDS.map(id)
  const ran = async (prompt: string | number[], options = {}) => {
    const result = await model.attribute([prompt], DEMO_TARGET, options)
    return { ids: [...result.ids(0)], values: [...result.values] }
  }
  const [withBos, without] = [await ran(DEMO_PROMPT), await ran(DEMO_PROMPT, { prependBos: false })]
  expect(withBos.ids).toEqual([0, ...ids])
  expect(without.ids).toEqual(ids)
  expect(without.values).not.toEqual(withBos.values)
  const target = { answer: id('Mary'), against: id('John') }
  for (const [prompt, expected] of [
    [[0, ...ids], withBos],
    [ids, without],
  ] as const) {
    const result = await model.attribute([prompt], target)
    expect({ ids: [...result.ids(0)], values: [...result.values] }).toEqual(expected)
  }
  await refusal('INVALID_ARGUMENT', () => model.attribute([ids], target, { prependBos: true }))
})

test('a token given as text stands for one id where it stands', async () => {
  const model = await open(DEMO)
  const tokens = async (answer: string) => {
    const [target] = (await model.attribute([DEMO_PROMPT], { answer })).targets
    return target && 'tokens' in target ? target.tokens : undefined
  }
  expect(await tokens(' Mary')).toEqual([{ id: id('Mary'), weight: 1 }])
  const error = await refusal('NOT_ONE_TOKEN', () => tokens(' Mary John'))
  expect(error.details).toMatchObject({ text: ' Mary John', pieces: ['Mary', 'John'] })
  // behind 'to', 'wards' makes one word with it
  await refusal('NOT_ONE_TOKEN', () => tokens('wards'))
  await refusal('NOT_ONE_TOKEN', () => tokens(''))
  const unknown = await refusal('NOT_ONE_TOKEN', () => tokens(' xylophone'))
  expect(unknown.details['pieces']).toEqual(['<unk>'])
})

test('without a tokenizer ids run, and texts are refused', async () => {
  const model = await open(fixture('gpt2'))
  expect(model.tokenizer).toBeUndefined()
  await model.attribute([[1, 2]], { answer: 3 })
  await refusal('TOKENIZER_MISSING', () => model.attribute(['some text'], { answer: 3 }))
  await refusal('TOKENIZER_MISSING', () => model.attribute([[1, 2]], { answer: ' Mary' }))
})

test('ids of the weights that the tokenizer has not are shown by number: weights are often padded', async () => {
  const directory = spoiled('demo')
  const path = join(directory, 'tokenizer.json')
  const file = readJson<{ model: { vocab: Record<string, number> } }>(path)
  const vocab = Object.fromEntries(Object.entries(file.model.vocab).filter(([, at]) => at < 150))
  writeFileSync(path, JSON.stringify({ ...file, model: { ...file.model, vocab } }))
  const model = await open(directory)
  const lens = await model.logitLens([[0, 104, 79]], { top: 342 })
  const texts = new Map(
    lens
      .row(0)
      .at(-1)
      ?.top?.map((token) => [token.id, token.text]),
  )
  expect([texts.get(79), texts.get(149), texts.get(150), texts.get(341)]).toEqual(['John', expect.not.stringMatching(/^#/), '#150', '#341']) // prettier-ignore
})
