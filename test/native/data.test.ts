// Data sets: what is drawn, which token every name became, what a tokenizer does not allow.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type DataItem, type Fact, facts, greaterThan, induction, ioi, type IoiCorruption, Model } from '../../src/index.js'
import { NAMES } from '../demo-language.js'
import { DEMO, fixture, open, readJson, refusal, spoiled } from '../helpers.js'

type Vocab = Record<string, number>
const { model: demo } = readJson<{ model: { vocab: Vocab } }>(DEMO, 'tokenizer.json')
const word = Object.fromEntries(Object.entries(demo.vocab).map(([text, id]) => [id, text]))

/** The demo model with another tokenizer over its 342 ids. */
async function withTokenizer(model: object, preTokenizer: object): Promise<Model> {
  const directory = spoiled('demo')
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  const tokens = [{ id: 0, content: '<bos>', ...special }, { id: 1, content: '<unk>', ...special }] // prettier-ignore
  const file = { version: '1.0', truncation: null, padding: null, added_tokens: tokens, normalizer: null, pre_tokenizer: preTokenizer, post_processor: null, decoder: preTokenizer === byteLevel ? byteLevel : null, model } // prettier-ignore
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(file))
  return open(directory, { allowCustomRegex: true })
}

/** Whole words of a list, and `filler`. */
const wordLevel = (words: readonly string[]) => {
  const vocab = Object.fromEntries(['<bos>', '<unk>', ...words].map((text, id) => [text, id]))
  return { type: 'WordLevel', vocab, unk_token: '<unk>' }
}

/** Byte-level BPE whose only merges build these pieces, letter by letter; a space is Ġ. */
function bytePairs(pieces: readonly string[]) {
  const letters = [...new Set(`Ġ,.{}${'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'}`)]
  const built = pieces.flatMap((piece) => Array.from(piece, (_, i) => [piece.slice(0, i), piece[i] ?? ''] as const).slice(1))
  const merges = [...new Map(built.map(([left, right]) => [left + right, [left, right] as const])).values()]
  const entries = ['<bos>', '<unk>', ...letters, ...merges.map((pair) => pair.join(''))]
  const vocab = Object.fromEntries(entries.map((text, id) => [text, id]))
  return { type: 'BPE', vocab, merges, unk_token: '<unk>', fuse_unk: false, byte_fallback: false }
}
const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }

describe('ioi on the demo', () => {
  test('names, positions, targets, by the words of the vocabulary', async () => {
    const data = ioi(await open(DEMO), { n: 40, seed: 3 })
    expect(data.items.map(({ variant }) => variant)).toEqual(Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 'ABBA' : 'BABA')))
    for (const { prompt, corrupted, positions, words, target, text, corruptedText, corruptedWords, variant, template } of data) {
      const tokens = prompt.map((id) => word[id])
      expect([tokens[0], tokens[positions.IO], tokens[positions.S1], tokens[positions.S2]]).toEqual(['<bos>', words.IO, words.S1, words.S1]) // prettier-ignore
      expect(tokens.slice(1)).toEqual(text.match(/\w+|[,.]/g))
      expect(positions.IO < positions.S1).toBe(variant === 'ABBA')
      expect(Math.max(positions.IO, positions.S1)).toBeLessThan(positions.S2)
      expect(positions.END).toBe(prompt.length - 1)
      expect([word[target.answer as number], word[target.against as number]]).toEqual([words.IO, words.S1])
      expect(prompt.filter((id) => id === target.against)).toHaveLength(2)
      // the twin: three names that are new and different, all else the same
      const twin = corrupted.map((id) => word[id])
      expect(twin.slice(1)).toEqual(corruptedText.match(/\w+|[,.]/g))
      const changed = tokens.flatMap((token, i) => (token === twin[i] ? [] : [i]))
      expect(changed).toEqual([positions.IO, positions.S1, positions.S2].sort((a, b) => a - b))
      const { IO, S1, S2 } = corruptedWords
      expect(new Set([IO, S1, S2, words.IO, words.S1]).size).toBe(5)
      expect([twin[positions.IO], twin[positions.S1], twin[positions.S2]]).toEqual([IO, S1, S2])
      expect(template).toMatch(/\{A\}.*\{B\}.*\{S\}.* \{IO\}$/)
    }
    expect(data.positions('END')).toEqual(data.items.map(({ prompt }) => [prompt.length - 1]))
    expect([data.prompts[3], data.corrupted[3], data.targets[3]]).toEqual([data.items[3]?.prompt, data.items[3]?.corrupted, data.items[3]?.target]) // prettier-ignore
  })

  test('says which names, templates and things it left out', async () => {
    const { leftOut } = ioi(await open(DEMO), { n: 1 })
    const names = leftOut.filter(({ list }) => list === 'names')
    expect(names.find((one) => one.word === 'Christopher')).toEqual({ list: 'names', word: 'Christopher', reason: 'unknown', pieces: ['<unk>'] }) // prettier-ignore
    expect(names.filter((one) => NAMES.includes(one.word))).toEqual([])
    const template = leftOut.find(({ list, word: text }) => list === 'templates' && text.startsWith('Friends'))
    expect(template?.pieces).toEqual(['<unk>'])
  })

  test.each<[IoiCorruption, (names: { IO?: string; S1?: string }) => (string | undefined)[]]>([
    ['IO-random', ({ S1 }) => ['new', S1, S1]],
    ['S1-random', ({ IO, S1 }) => [IO, 'new', S1]],
    ['S2-random', ({ IO, S1 }) => [IO, S1, 'new']],
    ['S-random', ({ IO }) => [IO, 'new', 'new']],
    ['IO-S1-swap', ({ IO, S1 }) => [S1, IO, S1]],
    ['S2-IO', ({ IO, S1 }) => [IO, S1, IO]],
  ])('the twins of %s', async (corruption, expected) => {
    for (const { words, corruptedWords, corrupted, positions } of ioi(await open(DEMO), { n: 12, corruption })) {
      const { IO, S1, S2 } = corruptedWords
      const roles = [IO, S1, S2].map((name) => (name === words.IO || name === words.S1 ? name : 'new'))
      expect(roles).toEqual(expected(words))
      if (corruption === 'S-random') expect(S1).toBe(S2)
      expect([positions.IO, positions.S1, positions.S2].map((at) => word[corrupted[at] ?? -1])).toEqual([IO, S1, S2])
    }
  })

  test('the same seed, the same items; another, others; order and lists as asked', async () => {
    const model = await open(DEMO)
    const texts = (options: object) => ioi(model, options).items.map(({ text }) => text)
    expect(texts({ seed: 5 })).toEqual(texts({ seed: 5 }))
    expect(texts({ seed: 5 })).not.toEqual(texts({ seed: 6 }))
    expect(texts({ n: 20 })).toEqual(texts({ n: 100 }).slice(0, 20))
    const [own] = ioi(model, { n: 1, order: 'BABA', names: ['Mary', 'John'], corruption: 'S2-IO', templates: ['{A} met {B} . {S} thanked {IO}'] }).items // prettier-ignore
    expect(own?.text).toMatch(/^(Mary met John \. Mary|John met Mary \. John) thanked$/)
    expect(own?.positions).toEqual({ S1: 1, IO: 3, S2: 5, END: 6 })
    const bare = ioi(model, { n: 1, prependBos: false }).items[0]
    expect([bare?.prompt[0], bare?.positions.END]).toEqual([demo.vocab.The, (bare?.prompt.length ?? 0) - 1])
  })

  test('as plain data, and as lines', async () => {
    const data = ioi(await open(DEMO), { n: 3, seed: 2 })
    const json = JSON.parse(JSON.stringify(data))
    expect(json).toMatchObject({
      name: 'ioi',
      seed: 2,
      source: 'arXiv:2211.00593',
      settings: { n: 3, order: 'both', corruption: 'ABC' },
    })
    expect(data.toJSONL().trimEnd().split('\n').map((line) => JSON.parse(line))).toEqual(json.items) // prettier-ignore
  })

  test('what is refused', async () => {
    const model = await open(DEMO)
    await refusal('UNKNOWN_OPTION', () => ioi(model, { name: ['Mary'] } as object))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { n: 0 }))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { seed: -1 }))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { order: 'AB' as 'ABBA' }))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { names: ['Mary', 'John', 'Anna', 'Mark'] })) // ABC needs five
    await refusal('INVALID_ARGUMENT', () => ioi(model, { names: ['Mary', 'Mary', 'Anna', 'Mark', 'Rose'] }))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { templates: ['{A} and {B} : {S} gave it to'] }))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { templates: ['{A} and {B} and {C} . {S} thanked {IO}'] }))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { templates: ['{A} and {B} . {S} thanked {IO} .'] }))
    const names = ['Mary', 'John', 'Xaver', 'Yvonne', 'Zoe']
    const { details } = await refusal('NOT_ONE_TOKEN', () => ioi(model, { names }))
    expect(details).toMatchObject({ list: 'names', kept: 2, of: 5, needed: 5 })
    await refusal('NOT_ONE_TOKEN', () => ioi(model, { places: ['castle'] }))
    await refusal('INVALID_ARGUMENT', () => ioi(model, { n: 1 }).positions('SUBJECT' as 'END'))
    const bare = await open(fixture('gpt2')) // no tokenizer
    await refusal('TOKENIZER_MISSING', () => ioi(bare))
  })
})

describe('ioi on a byte-level tokenizer, where a word is one token or several', () => {
  const names = ['Mary', 'Mark', 'Marc', 'Mari', 'Maro', 'Marybeth']
  const pieces = ['ĠMary', 'ĠMark', 'ĠMarc', 'ĠMari', 'ĠMaro', 'Ġand', 'Ġgave', 'Ġto', 'Ġit', 'Ġmet', 'Ġbox']

  test('positions in tokens, not words; names that are several tokens are left out', async () => {
    const model = await withTokenizer(bytePairs(pieces), byteLevel)
    const templates = ['We met {A} and {B}, {S} gave a {OBJECT} to {IO}']
    const data = ioi(model, { n: 10, names, objects: ['box', 'rope'], templates })
    expect(data.leftOut).toEqual([
      { list: 'names', word: 'Marybeth', reason: 'not one token', pieces: [' Mary', 'b', 'e', 't', 'h'] },
    ])
    for (const { prompt, corrupted, positions, words, target, variant } of data) {
      const at = (position: number) => model.tokenizer?.decode([prompt[position] ?? 0])
      expect([at(positions.IO), at(positions.S1), at(positions.S2), at(positions.END)]).toEqual([` ${words.IO}`, ` ${words.S1}`, ` ${words.S1}`, ' to']) // prettier-ignore
      expect(positions[variant === 'ABBA' ? 'IO' : 'S1']).toBe(3) // W, e, met
      expect(model.tokenizer?.decode([target.answer as number])).toBe(` ${words.IO}`)
      expect(corrupted).toHaveLength(prompt.length)
    }
    expect(new Set(data.items.map(({ prompt }) => prompt.length)).size).toBe(2) // box is one token, rope four
  })

  test('a name that begins a sentence is another token there, and must be one', async () => {
    const model = await withTokenizer(bytePairs(pieces), byteLevel)
    const templates = ['{A} met {B} and {S} gave it to {IO}']
    const { details } = await refusal('NOT_ONE_TOKEN', () => ioi(model, { names, templates }))
    expect(details).toMatchObject({ list: 'names', kept: 0 })
  })
})

describe('induction', () => {
  test('a sequence again, but for its last token; twins in which nothing repeats', async () => {
    const data = induction(await open(DEMO), { n: 30, length: 12, seed: 1 })
    for (const { prompt, corrupted, positions, target } of data) {
      const [first, second, other] = [prompt.slice(1, 13), prompt.slice(13), corrupted.slice(1, 13)]
      expect([prompt[0], prompt.length, corrupted.length]).toEqual([0, 24, 24])
      expect([...second, target.answer]).toEqual(first)
      expect(new Set([...first, ...other]).size).toBe(24)
      expect(corrupted.slice(13)).toEqual(second)
      expect(prompt.every((id, i) => (i === 0 ? id === 0 : id > 1))).toBe(true)
      expect([positions.A, positions.B, positions.END]).toEqual([11, 12, 23])
      expect(prompt[positions.A]).toBe(prompt[positions.END])
      expect(prompt[positions.B]).toBe(target.answer)
      expect(first.slice(0, 10)).toContain(target.against)
    }
  })

  test('lengths by default and by limit; no tokenizer is needed', async () => {
    const model = await open(fixture('gpt2')) // 101 tokens, context 64, BOS 1
    const [item] = induction(model, { n: 1 }).items
    expect([item?.prompt.length, item?.prompt[0]]).toEqual([50, 1])
    expect(induction(model, { n: 1, prependBos: false }).items[0]?.prompt).toHaveLength(49)
    expect(induction(model, { n: 1, length: 32 }).items[0]?.prompt).toHaveLength(64) // the whole context
    await refusal('INVALID_ARGUMENT', () => induction(model, { length: 33 }))
    await refusal('INVALID_ARGUMENT', () => induction(model, { length: 2 }))
    await refusal('UNKNOWN_OPTION', () => induction(model, { period: 3 } as object))
  })
})

describe('facts', () => {
  const rulers: Fact[] = [
    { template: 'The king of {SUBJECT} is {ANSWER}', subject: 'France', answer: 'Henry', relation: 'king' },
    { template: 'The king of {SUBJECT} is {ANSWER}', subject: 'England', answer: 'George', relation: 'king' },
    { template: 'The king of {SUBJECT} is {ANSWER}', subject: 'Hyde Park', answer: 'Leo', relation: 'king' },
    { template: 'The king of {SUBJECT} is {ANSWER}', subject: 'Spain', answer: 'Alfonso' },
  ]

  test('those that the vocabulary has, each at most once, twins of the same sentence and length', async () => {
    const data = facts(await open(DEMO))
    expect(data.length).toBeGreaterThan(50)
    expect(new Set(data.items.map(({ text }) => text)).size).toBe(data.length)
    expect(new Set(data.items.map(({ variant }) => variant))).toEqual(new Set(['capital', 'language', 'landmark']))
    for (const { prompt, corrupted, positions, words, corruptedWords, target } of data) {
      const subject = (ids: readonly number[]) => ids.slice(positions.SUBJECT_FIRST, positions.SUBJECT + 1).map((id) => word[id]).join(' ') // prettier-ignore
      expect([subject(prompt), subject(corrupted)]).toEqual([words.SUBJECT, corruptedWords.SUBJECT])
      const rest = (ids: readonly number[]) => ids.filter((_, i) => i < positions.SUBJECT_FIRST || i > positions.SUBJECT)
      expect(rest(prompt)).toEqual(rest(corrupted))
      expect([word[target.answer as number], word[target.against as number]]).toEqual([words.ANSWER, corruptedWords.ANSWER])
      expect(target.answer).not.toBe(target.against)
    }
  })

  test("a user's own list", async () => {
    const model = await open(DEMO)
    const data = facts(model, rulers)
    expect(data.items.map(({ text }) => text).sort()).toEqual(['The king of England is', 'The king of France is'])
    expect(data.leftOut).toEqual([
      { list: 'facts', word: 'The king of Spain is Alfonso', reason: 'unknown', pieces: ['<unk>'] },
      { list: 'facts', word: 'The king of Hyde Park is Leo', reason: 'no twin', pieces: [] }, // of two tokens
    ])
    const item = data.items.find(({ words }) => words.SUBJECT === 'France') as DataItem
    expect(item.positions).toEqual({ SUBJECT_FIRST: 4, SUBJECT: 4, END: 5 })
    expect(item.corruptedText).toBe('The king of England is')
  })

  test('what is refused', async () => {
    const model = await open(DEMO)
    await refusal('INVALID_ARGUMENT', () => facts(model, []))
    await refusal('INVALID_ARGUMENT', () => facts(model, rulers, { n: 5 }))
    const { details } = await refusal('NOT_ONE_TOKEN', () => facts(model, rulers, { n: 3 }))
    expect(details).toMatchObject({ kept: 2, of: 4, needed: 3 })
    await refusal('INVALID_ARGUMENT', () => facts(model, [{ template: 'The king of {SUBJECT}', subject: 'Spain', answer: 'Leo' }]))
    await refusal('INVALID_ARGUMENT', () => facts(model, [{ ...rulers[0], answer: ' Leo' } as Fact]))
    await refusal('UNKNOWN_OPTION', () => facts(model, [{ ...rulers[0], objekt: 'Leo' } as Fact]))
    await refusal('UNKNOWN_OPTION', () => facts(model, rulers, { length: 3 } as object))
  })
})

describe('greater-than', () => {
  const numbers = Array.from({ length: 100 }, (_, i) => String(i).padStart(2, '0'))
  const nouns = ['war', 'plague', 'tour']
  const words = ['The', 'lasted', 'from', 'the', 'year', 'to', ...nouns.slice(0, 2), ...numbers.filter((digits) => digits !== '45')]
  const inPairs = {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Whitespace' },
      { type: 'Split', pattern: { Regex: '[0-9][0-9]' }, behavior: 'Isolated', invert: false },
    ],
  }

  test('years of two tokens, answers above, rivals up to the year; twins that begin in 01', async () => {
    const model = await withTokenizer(wordLevel(words), inPairs)
    const data = greaterThan(model, { n: 60, nouns })
    const id = (text: string) => 2 + words.indexOf(text)
    for (const {
      prompt,
      corrupted,
      positions,
      words: { NOUN = '', XX = '', YY = '' },
      target,
    } of data) {
      // prettier-ignore
      expect(prompt).toEqual(`The ${NOUN} lasted from the year ${XX} ${YY} to the year ${XX}`.split(' ').map(id))
      expect(corrupted).toEqual(prompt.map((token, i) => (i === positions.YY ? id('01') : token)))
      expect(positions).toEqual({ NOUN: 1, XX: 6, YY: 7, END: 11 })
      const known = numbers.filter((digits) => digits !== '45')
      expect(target.answer).toEqual(known.filter((digits) => digits > YY).map(id))
      expect(target.against).toEqual(known.filter((digits) => digits <= YY).map(id))
      expect(Number(XX)).toBeGreaterThanOrEqual(11)
      expect(Number(XX)).toBeLessThanOrEqual(17)
      expect(YY > '01' && YY < '99' && YY !== '45').toBe(true)
    }
    expect(data.leftOut.filter(({ list }) => list === 'years').map((one) => one.word)).toEqual(['11', '12', '13', '14', '15', '16', '17'].map((XX) => `${XX}45`)) // prettier-ignore
    expect(data.leftOut.find(({ list }) => list === 'nouns')?.word).toBe('tour')
    const found = await model.evaluate(data)
    expect(found.items.every(({ correct, difference }) => correct === difference > 0)).toBe(true)
    expect(found.probability.mean).toBeLessThan(1)
  })

  test('refused where years are one token, or a token a digit', async () => {
    const whole = await withTokenizer(wordLevel([...words, '1732']), { type: 'Whitespace' })
    const { details } = await refusal('NOT_ONE_TOKEN', () => greaterThan(whole, { nouns }))
    expect(details).toMatchObject({ list: 'years', kept: 0, needed: 1 })
    const digits = await withTokenizer(bytePairs(['Ġwar']), byteLevel)
    await refusal('NOT_ONE_TOKEN', () => greaterThan(digits, { nouns: ['war'] }))
    await refusal('NOT_ONE_TOKEN', async () => greaterThan(await open(DEMO)))
    await refusal('UNKNOWN_OPTION', () => greaterThan(whole, { noun: nouns } as object))
  })
})
