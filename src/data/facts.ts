// Facts, each with the fact of another subject as its twin.
import { invalidArgument } from '../errors.js'
import type { Model } from '../model.js'
import { checkKeys } from '../options.js'
import { type DataItem, type DataOptions, dataOptions, Dataset } from './dataset.js'
import { type Fact, KNOWN_FACTS } from './known-facts.js'
import { Reader } from './reader.js'
import { type Placed, Template } from './template.js'
import { Sieve, tooFew } from './words.js'

export type { Fact } from './known-facts.js'

/** A fact that the tokenizer allows. */
interface Usable {
  readonly fact: Fact
  readonly template: Template
  readonly placed: Placed
  readonly answer: number
}

/**
 * Facts of the form subject → answer: "The capital of France is" → " Paris". The twin is the same sentence with another
 * subject of as many tokens and another answer, and that answer is the rival. Every fact comes at most once, in an order
 * that the seed gives. Positions: `SUBJECT_FIRST`, `SUBJECT` (its last token), `END`.
 *
 * Built in: capitals, languages, landmarks and continents, about a hundred. A fact whose words the vocabulary lacks, whose
 * answer is not one token, or that has no twin is left out.
 *
 * Source of the setting: Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv:2202.05262.
 *
 * @param list your own facts in place of the built-in ones
 * @throws {PrismError} `NOT_ONE_TOKEN` where too few facts are left, `TOKENIZER_MISSING`, `INVALID_ARGUMENT`, `UNKNOWN_OPTION`
 */
export function facts(
  model: Model,
  list: readonly Fact[] = KNOWN_FACTS,
  options: DataOptions = {},
): Dataset<'SUBJECT_FIRST' | 'SUBJECT' | 'END'> {
  const { n, seed, prependBos, random } = dataOptions('facts', options)
  if (!Array.isArray(list) || list.length === 0) throw invalidArgument('list', list, 'a list of facts')
  if (n !== undefined && n > list.length) throw invalidArgument('n', n, `at most ${list.length}, as many as there are facts`)
  const sieve = new Sieve(new Reader(model, 'facts', prependBos))
  const usable = usableFacts(sieve, list)
  const twins = usable.map((one) => usable.filter((other) => isTwin(one, other)))
  const paired = usable.flatMap((one, i) => {
    const others = twins[i] ?? []
    if (others.length > 0) return [{ one, others }]
    sieve.leave('facts', sentence(one.fact), 'no twin', [])
    return []
  })
  const needed = n ?? 1
  if (paired.length < needed) throw tooFew('facts', { kept: paired.length, of: list.length, needed }, sieve.leftOut)
  const items = random.sample(paired, n ?? paired.length).map(({ one, others }) => item(one, random.pick(others)))
  const settings = { n: items.length, ...(prependBos === undefined ? {} : { prependBos }) }
  return new Dataset({ name: 'facts', source: 'arXiv:2202.05262', seed, settings, leftOut: sieve.leftOut }, items)
}

function usableFacts(sieve: Sieve, list: readonly unknown[]): Usable[] {
  const templates = new Map<unknown, Template>()
  return list.flatMap((given: unknown, i): Usable[] => {
    const fact = checked(given, i)
    const template = templates.get(fact.template) ?? new Template(`list[${i}].template`, fact.template, ['SUBJECT', 'ANSWER'])
    templates.set(fact.template, template)
    const { reader } = sieve
    const unknown = [fact.subject, fact.answer].find((word) => !reader.knows(word)) ?? template.unknownPart(reader)
    const leave = (reason: 'unknown' | 'not one token', pieces: readonly string[]) => {
      sieve.leave('facts', sentence(fact), reason, pieces)
      return []
    }
    if (unknown !== undefined) return leave('unknown', reader.pieces('', unknown))
    const placed = template.place(reader, { SUBJECT: fact.subject }, ['SUBJECT'])
    const answer = reader.token(placed.text, template.joint + fact.answer)
    if (answer === undefined) return leave('not one token', reader.pieces(placed.text, template.joint + fact.answer))
    return [{ fact, template, placed, answer }]
  })
}

function checked(fact: unknown, i: number): Fact {
  checkKeys(`list[${i}]`, fact, ['template', 'subject', 'answer', 'relation'])
  const { subject, answer, relation = '' } = fact as Record<string, unknown>
  for (const [name, text] of Object.entries({ subject, answer })) {
    const isText = typeof text === 'string' && text !== '' && text.trim() === text
    if (!isText) throw invalidArgument(`list[${i}].${name}`, text, 'a text without spaces around it')
  }
  if (typeof relation !== 'string') throw invalidArgument(`list[${i}].relation`, relation, 'a text')
  return fact as Fact
}

function sentence({ template, subject, answer }: Fact): string {
  return template.replace('{SUBJECT}', () => subject).replace('{ANSWER}', () => answer)
}

/** Whether the facts are of one sentence, equally long, and differ in their answers. */
function isTwin(one: Usable, other: Usable): boolean {
  const sameShape = one.template === other.template && one.placed.ids.length === other.placed.ids.length
  const subjects = [one, other].map(({ placed }) => placed.span('SUBJECT'))
  return sameShape && subjects[0]?.last === subjects[1]?.last && one.answer !== other.answer
}

function item(one: Usable, other: Usable): DataItem<'SUBJECT_FIRST' | 'SUBJECT' | 'END'> {
  const { fact, placed } = one
  const { first, last } = placed.span('SUBJECT')
  return {
    prompt: placed.ids,
    corrupted: other.placed.ids,
    text: placed.text,
    corruptedText: other.placed.text,
    target: { answer: one.answer, against: other.answer },
    positions: { SUBJECT_FIRST: first, SUBJECT: last, END: placed.ids.length - 1 },
    words: { SUBJECT: fact.subject, ANSWER: fact.answer },
    corruptedWords: { SUBJECT: other.fact.subject, ANSWER: other.fact.answer },
    template: fact.template,
    variant: fact.relation ?? fact.template,
  }
}
