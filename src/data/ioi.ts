// Indirect object identification: two names, one of them repeated, and who gets the thing.
import type { Model } from '../model.js'
import { oneOf } from '../options.js'
import type { SplitMix } from '../random.js'
import { type DataItem, type DataOptions, dataOptions, Dataset } from './dataset.js'
import { Reader } from './reader.js'
import { Template } from './template.js'
import { placesOf, Sieve, textList } from './words.js'

/**
 * What the twin of an IOI prompt has in place of its names, as Wang et al. have it. `'ABC'`: three random names, so that
 * nobody is repeated. `'IO-random'`, `'S1-random'`, `'S2-random'`, `'S-random'` (both mentions): a random name there.
 * `'IO-S1-swap'`: the two names in the other order. `'S2-IO'`: the indirect object is repeated, so that the subject is the
 * right answer. Targets are those of the prompt.
 */
export type IoiCorruption = 'ABC' | 'IO-random' | 'S1-random' | 'S2-random' | 'S-random' | 'IO-S1-swap' | 'S2-IO'

/** Options of {@link ioi}. */
export interface IoiOptions extends DataOptions {
  /** Which name comes first: the indirect object in `'ABBA'`, the subject in `'BABA'`; `'both'` (default): in turn. */
  readonly order?: 'ABBA' | 'BABA' | 'both'
  /** The twins. Default `'ABC'`. */
  readonly corruption?: IoiCorruption
  /** Names that may be drawn. */
  readonly names?: readonly string[]
  /** What stands at `{PLACE}`. */
  readonly places?: readonly string[]
  /** What stands at `{OBJECT}`. */
  readonly objects?: readonly string[]
  /**
   * Sentences with the slots `{A}` and `{B}` (the two names as they come), `{S}` (the subject again) and, at the end, `{IO}`
   * (the answer); `{PLACE}` and `{OBJECT}` may stand in them.
   */
  readonly templates?: readonly string[]
}

/** Names of {@link IoiCorruption}. */
export const CORRUPTIONS = ['ABC', 'IO-random', 'S1-random', 'S2-random', 'S-random', 'IO-S1-swap', 'S2-IO'] as const
const IOI_OPTIONS = ['order', 'corruption', 'names', 'places', 'objects', 'templates'] as const

/** Of the lists of Wang et al.: names that are one token of GPT-2. */
const NAMES = `Michael Christopher Jessica Matthew Ashley Jennifer Joshua Amanda Daniel David James Robert John Joseph Andrew Ryan
  Brandon Jason Justin Sarah William Jonathan Brian Nicole Nicholas Anthony Heather Eric Elizabeth Adam Kevin Steven Thomas
  Timothy Kyle Rachel Laura Lauren Amber Richard Kimberly Jeffrey Amy Crystal Michelle Jeremy Benjamin Mark Emily Aaron Charles
  Rebecca Jacob Stephen Patrick Sean Kelly Samantha Nathan Sara Paul Angela Tyler Scott Andrea Gregory Mary Lisa Kenneth Jose
  Alexander Jesse Katie Shannon Vanessa Christine Alicia Cody Allison Bradley Samuel`.split(/\s+/)
const PLACES = ['store', 'garden', 'restaurant', 'school', 'hospital', 'office', 'house', 'station']
/** Theirs, and four everyday ones. */
const OBJECTS = ['ring', 'kiss', 'bone', 'basketball', 'computer', 'necklace', 'drink', 'snack', 'book', 'letter', 'box', 'hat']
const TEMPLATES = [
  'Then, {A} and {B} went to the {PLACE}. {S} gave a {OBJECT} to {IO}',
  'Then, {A} and {B} had a lot of fun at the {PLACE}. {S} gave a {OBJECT} to {IO}',
  'Then, {A} and {B} were working at the {PLACE}. {S} decided to give a {OBJECT} to {IO}',
  'Then, {A} and {B} were thinking about going to the {PLACE}. {S} wanted to give a {OBJECT} to {IO}',
  'Then, {A} and {B} had a long argument, and afterwards {S} said to {IO}',
  'After {A} and {B} went to the {PLACE}, {S} gave a {OBJECT} to {IO}',
  'When {A} and {B} got a {OBJECT} at the {PLACE}, {S} decided to give it to {IO}',
  'When {A} and {B} got a {OBJECT} at the {PLACE}, {S} decided to give the {OBJECT} to {IO}',
  'While {A} and {B} were working at the {PLACE}, {S} gave a {OBJECT} to {IO}',
  'While {A} and {B} were commuting to the {PLACE}, {S} gave a {OBJECT} to {IO}',
  'After the lunch, {A} and {B} went to the {PLACE}. {S} gave a {OBJECT} to {IO}',
  'Afterwards, {A} and {B} went to the {PLACE}. {S} gave a {OBJECT} to {IO}',
  'Then, {A} and {B} had a long argument. Afterwards {S} said to {IO}',
  'The {PLACE} {A} and {B} went to had a {OBJECT}. {S} gave it to {IO}',
  'Friends {A} and {B} found a {OBJECT} at the {PLACE}. {S} gave it to {IO}',
]

type Role = 'IO' | 'S1' | 'S2'
type Names = Readonly<Record<Role, string>>

/**
 * Indirect object identification: "After Mary and John went to the store, John gave a ring to" → " Mary", not " John". Items
 * are drawn one by one, so a prompt can come twice; the two orders come in turn. Positions: `IO`, `S1`, `S2`, `END`.
 *
 * Names must be one token where they stand, with what else the lists hold known to the tokenizer; others are left out.
 *
 * Source: Wang et al. 2022, "Interpretability in the Wild", arXiv:2211.00593.
 *
 * @throws {PrismError} `NOT_ONE_TOKEN` where too few words are left, `TOKENIZER_MISSING`, `INVALID_ARGUMENT`, `UNKNOWN_OPTION`
 */
export function ioi(model: Model, options: IoiOptions = {}): Dataset<'IO' | 'S1' | 'S2' | 'END'> {
  const { n = 100, seed, prependBos, random } = dataOptions('ioi', options, IOI_OPTIONS)
  const order = oneOf('order', options.order, ['ABBA', 'BABA', 'both'], 'both')
  const corruption = oneOf('corruption', options.corruption, CORRUPTIONS, 'ABC')
  const reader = new Reader(model, 'IOI prompts', prependBos)
  const sieve = new Sieve(reader)
  const lists = usable(sieve, options, corruption)
  const items = Array.from({ length: n }, (_, i) => {
    const variant = order === 'both' ? (i % 2 === 0 ? 'ABBA' : 'BABA') : order
    const template = random.pick(lists.templates)
    const [IO, S] = random.sample(lists.names, 2) as [string, string]
    const things = lists.things.map(([slot, words]) => [slot, random.pick(words)] as const).filter(([slot]) => template.has(slot))
    const names = { IO, S1: S, S2: S }
    const twin = corrupted(corruption, names, lists.names, random)
    return item(reader, { variant, template, names, twin, things: Object.fromEntries(things) })
  })
  const settings = { n, order, corruption, ...(prependBos === undefined ? {} : { prependBos }) }
  return new Dataset({ name: 'ioi', source: 'arXiv:2211.00593', seed, settings, leftOut: sieve.leftOut }, items)
}

/** Templates, names, and words for the other slots, as far as the tokenizer allows them. */
function usable(sieve: Sieve, options: IoiOptions, corruption: IoiCorruption) {
  const given = textList('templates', options.templates, TEMPLATES)
  const all = given.map((text, i) => new Template(`templates[${i}]`, text, ['A', 'B', 'S', 'IO'], ['PLACE', 'OBJECT']))
  const names = textList('names', options.names, NAMES)
  const places = textList('places', options.places, PLACES)
  const objects = textList('objects', options.objects, OBJECTS)
  const templates = sieve.templates(all)
  const least = corruption === 'ABC' ? 5 : corruption.endsWith('random') ? 3 : 2
  const needed = (slot: string) => (templates.some((template) => template.has(slot)) ? 1 : 0)
  return {
    templates,
    names: sieve.oneToken('names', names, placesOf(templates, ['A', 'B', 'S', 'IO']), least),
    things: [
      ['PLACE', sieve.known('places', places, needed('PLACE'))],
      ['OBJECT', sieve.known('objects', objects, needed('OBJECT'))],
    ] as const,
  }
}

/** What was drawn for an item. */
interface Drawn {
  readonly variant: 'ABBA' | 'BABA'
  readonly template: Template
  readonly names: Names
  readonly twin: Names
  readonly things: Readonly<Record<string, string>>
}

function item(reader: Reader, { variant, template, names, twin, things }: Drawn): DataItem<Role | 'END'> {
  const slots = variant === 'ABBA' ? ({ IO: 'A', S1: 'B', S2: 'S' } as const) : ({ IO: 'B', S1: 'A', S2: 'S' } as const)
  const placed = (roles: Names) => {
    const inSlots = { [slots.IO]: roles.IO, [slots.S1]: roles.S1, [slots.S2]: roles.S2 }
    const made = template.place(reader, { ...things, ...inSlots }, ['A', 'B', 'S'])
    return { ...made, at: { IO: made.token(slots.IO), S1: made.token(slots.S1), S2: made.token(slots.S2) } }
  }
  const [clean, other] = [placed(names), placed(twin)]
  return {
    prompt: clean.ids,
    corrupted: other.ids,
    text: clean.text,
    corruptedText: other.text,
    target: { answer: clean.answer(names.IO), against: clean.answer(names.S1) },
    positions: { ...clean.at, END: clean.ids.length - 1 },
    words: { ...names, ...things },
    corruptedWords: { ...twin, ...things },
    template: template.text,
    variant,
  }
}

/** The names of the twin. */
function corrupted(corruption: IoiCorruption, names: Names, all: readonly string[], random: SplitMix): Names {
  const { IO, S1: S } = names
  const others = all.filter((name) => name !== IO && name !== S)
  const draw = (count: number) => random.sample(others, count) as [string, string, string]
  if (corruption === 'ABC') {
    const [a, b, c] = draw(3)
    return { IO: a, S1: b, S2: c }
  }
  if (corruption === 'IO-S1-swap') return { IO: S, S1: IO, S2: S }
  if (corruption === 'S2-IO') return { IO, S1: S, S2: IO }
  const [other] = draw(1)
  if (corruption === 'IO-random') return { ...names, IO: other }
  if (corruption === 'S-random') return { IO, S1: other, S2: other }
  return corruption === 'S1-random' ? { ...names, S1: other } : { ...names, S2: other }
}
