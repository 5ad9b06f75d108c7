// Greater-than: a span of years ends later than it began.
import type { Model } from '../model.js'
import { type DataItem, type DataOptions, dataOptions, Dataset } from './dataset.js'
import { Reader } from './reader.js'
import { Template } from './template.js'
import { placesOf, Sieve, textList, tooFew } from './words.js'

/** Options of {@link greaterThan}. */
export interface GreaterThanOptions extends DataOptions {
  /** What lasted. */
  readonly nouns?: readonly string[]
}

const NOUNS =
  `abduction accord affair agreement appraisal assault assessment attack attempt campaign captivity case challenge chaos clash
  collaboration coma competition confrontation consequence conspiracy construction consultation contact contract convention
  cooperation custody deal decline decrease demonstration development disagreement disorder dispute domination dynasty effect
  effort employment endeavor engagement epidemic evaluation exchange existence expansion expedition experiment fall fame
  friendship growth hardship hostility illness impact imprisonment improvement incarceration increase insurgency invasion
  investigation journey kingdom marriage modernization negotiation notoriety obstruction operation order outbreak outcome
  overhaul pilgrimage plague plan practice process program progress project pursuit quest raid reign relationship retaliation
  riot rise rivalry romance rule sanction shift siege slump stature stint strike study test therapy tour tradition treaty trial
  trip unemployment voyage warfare work`.split(/\s+/)
const CENTURIES = ['11', '12', '13', '14', '15', '16', '17']
const TWO_DIGITS = Array.from({ length: 100 }, (_, i) => String(i).padStart(2, '0'))
const TEMPLATE = 'The {NOUN} lasted from the year {YEAR} to the year {CENTURY}{YY}'

/**
 * "The war lasted from the year 1732 to the year 17" → a number above 32. The answer is every two-digit token above the
 * first year's (their mean logit), the rival every other one from 00 on, as far as the vocabulary has them. In the twin the first year ends in 01, so that
 * nearly every number is right. Years of 1102 to 1798 that are two tokens, century and number. Positions: `NOUN`, `XX` and
 * `YY` (the first year's halves), `END` (the second century).
 *
 * Only for tokenizers that split years so (GPT-2's does); others are refused.
 *
 * Source: Hanna et al. 2023, "How does GPT-2 compute greater-than?", arXiv:2305.00586.
 *
 * @throws {PrismError} `NOT_ONE_TOKEN` where too few years or nouns are left, `TOKENIZER_MISSING`, `INVALID_ARGUMENT`,
 * `UNKNOWN_OPTION`
 */
export function greaterThan(model: Model, options: GreaterThanOptions = {}): Dataset<'NOUN' | 'XX' | 'YY' | 'END'> {
  const { n = 100, seed, prependBos, random } = dataOptions('greaterThan', options, ['nouns'])
  const given = textList('nouns', options.nouns, NOUNS)
  const reader = new Reader(model, 'greater-than prompts', prependBos)
  const sieve = new Sieve(reader)
  const template = new Template('template', TEMPLATE, ['NOUN', 'YEAR', 'CENTURY', 'YY'])
  sieve.templates([template])
  const nouns = sieve.oneToken('nouns', given, placesOf([template], ['NOUN']), 1)
  const { years, numbers } = splitYears(sieve, template)
  const items = Array.from({ length: n }, () => {
    return item(reader, template, { noun: random.pick(nouns), ...random.pick(years) }, numbers)
  })
  const settings = { n, ...(prependBos === undefined ? {} : { prependBos }) }
  return new Dataset({ name: 'greater-than', source: 'arXiv:2305.00586', seed, settings, leftOut: sieve.leftOut }, items)
}

interface Year {
  readonly century: string
  readonly number: string
}

/** The years that are two tokens where they stand, their centuries' 01 too, and the id of every two-digit number. */
function splitYears(sieve: Sieve, template: Template): { years: Year[]; numbers: ReadonlyMap<string, number> } {
  const { reader } = sieve
  const [place = ['', ''] as const] = placesOf([template], ['YEAR'])
  const numbers = new Map<string, number>()
  const years = CENTURIES.flatMap((century) => {
    const split = new Set<string>()
    for (const number of TWO_DIGITS) {
      const id = secondHalf(reader, place, { century, number })
      if (id === undefined || (numbers.get(number) ?? id) !== id) continue
      numbers.set(number, id)
      split.add(number)
    }
    const asked = TWO_DIGITS.slice(2, 99)
    const kept = split.has('01') ? asked.filter((number) => split.has(number)) : []
    for (const number of asked.filter((each) => !kept.includes(each))) {
      sieve.leave('years', century + number, 'not one token', reader.pieces(place[0], place[1] + century + number))
    }
    return kept.map((number) => ({ century, number }))
  })
  addAlone(reader, numbers)
  // each side of the question needs a number
  const usable = years.filter(({ number }) => TWO_DIGITS.slice(Number(number) + 1).some((above) => numbers.has(above)))
  const of = CENTURIES.length * 97
  if (usable.length === 0) throw tooFew('years', { kept: 0, of, needed: 1 }, sieve.leftOut)
  return { years: usable, numbers }
}

/** The id of a year's number, where century and number are a token each in a sentence and behind the century alone. */
function secondHalf(reader: Reader, [text, joint]: readonly [string, string], { century, number }: Year): number | undefined {
  const [first, second, ...more] = reader.behind(text, joint + century + number) ?? []
  const halves = [reader.token(text, joint + century), reader.token(text + joint + century, number)]
  return second !== undefined && more.length === 0 && first === halves[0] && second === halves[1] ? second : undefined
}

/** Numbers that never stand behind a century, as GPT-2's " 1100" is one token: they are tokens all the same. */
function addAlone(reader: Reader, numbers: Map<string, number>): void {
  if (![...numbers].every(([number, id]) => reader.token('', number) === id)) return
  for (const number of TWO_DIGITS) {
    const id = reader.token('', number)
    if (id !== undefined) numbers.set(number, id)
  }
}

function item(
  reader: Reader,
  template: Template,
  { noun, century, number }: Year & { readonly noun: string },
  numbers: ReadonlyMap<string, number>,
): DataItem<'NOUN' | 'XX' | 'YY' | 'END'> {
  const placed = (ending: string) => {
    const words = { NOUN: noun, YEAR: century + ending, CENTURY: century }
    return template.place(reader, words, ['NOUN', 'YEAR', 'CENTURY'])
  }
  const [clean, twin] = [placed(number), placed('01')]
  const ids = (list: readonly string[]) => list.flatMap((digits) => numbers.get(digits) ?? [])
  const year = clean.span('YEAR')
  return {
    prompt: clean.ids,
    corrupted: twin.ids,
    text: clean.text,
    corruptedText: twin.text,
    target: { answer: ids(TWO_DIGITS.slice(Number(number) + 1)), against: ids(TWO_DIGITS.slice(0, Number(number) + 1)) },
    positions: { NOUN: clean.span('NOUN').last, XX: year.first, YY: year.last, END: clean.ids.length - 1 },
    words: { NOUN: noun, XX: century, YY: number },
    corruptedWords: { NOUN: noun, XX: century, YY: '01' },
    template: TEMPLATE,
    variant: `${century}00s`,
  }
}
