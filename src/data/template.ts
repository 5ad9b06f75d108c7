// Sentences with slots: what stands in them, and which tokens it became.
import { invalidArgument } from '../errors.js'
import { isPrefix, notOneToken, type Reader } from './reader.js'

/** A slot and the text between the slot before it, or the start, and itself. */
interface Slot {
  readonly name: string
  readonly before: string
}

/** A prompt made from a template. */
export interface Placed {
  readonly text: string
  readonly ids: readonly number[]
  /** The id of a word where the template's last slot stands. @throws {PrismError} `NOT_ONE_TOKEN` */
  answer(word: string): number
  /** First and last token of the word in a slot. */
  span(slot: string): { readonly first: number; readonly last: number }
  /** The one token of the word in a slot. @throws {PrismError} `NOT_ONE_TOKEN` */
  token(slot: string): number
}

/**
 * A sentence whose slots are names in braces: `'The capital of {SUBJECT} is {ANSWER}'`. The last slot is the answer and ends
 * the sentence: what stands before it is the prompt, and spaces in front of it belong to the answer's token.
 */
export class Template {
  readonly text: string
  readonly slots: readonly Slot[]
  /** The spaces in front of the answer. */
  readonly joint: string

  /**
   * @param located slots that stand in the sentence exactly once, the answer last
   * @param others slots that may stand in it any number of times
   * @throws {PrismError} `INVALID_ARGUMENT`
   */
  constructor(argument: string, text: unknown, located: readonly string[], others: readonly string[] = []) {
    const expected = `a sentence with ${located.map((name) => `{${name}}`).join(', ')} once each, the last one at its end`
    if (typeof text !== 'string') throw invalidArgument(argument, text, expected)
    const parts = text.split(/\{([^{}]*)\}/)
    this.text = text
    this.slots = Array.from({ length: (parts.length - 1) / 2 }, (_, i) => {
      return { before: parts[2 * i] ?? '', name: parts[2 * i + 1] ?? '' }
    })
    const names = this.slots.map(({ name }) => name)
    const once = located.every((name) => names.indexOf(name) >= 0 && names.indexOf(name) === names.lastIndexOf(name))
    const known = names.every((name) => located.includes(name) || others.includes(name))
    const ends = names.at(-1) === located.at(-1) && parts.at(-1) === ''
    if (!once || !known || !ends) throw invalidArgument(argument, text, expected)
    this.joint = /\s*$/.exec(this.slots.at(-1)?.before ?? '')?.[0] ?? ''
  }

  /** Whether a slot stands in it. */
  has(slot: string): boolean {
    return this.slots.some(({ name }) => name === slot)
  }

  /** The first text between slots that holds what the vocabulary has not. */
  unknownPart(reader: Reader): string | undefined {
    return this.slots.map(({ before }) => before.trim()).find((part) => part !== '' && !reader.knows(part))
  }

  /**
   * The prompt with words in its slots; the spans of `located` are found by encoding up to each.
   *
   * @throws {PrismError} `NOT_ONE_TOKEN` where the tokenizer merges a word with what stands around it
   */
  place(reader: Reader, words: Readonly<Record<string, string>>, located: readonly string[]): Placed {
    let text = ''
    const pieces = this.slots.slice(0, -1).map(({ name, before }) => {
      const start = (text + before).trimEnd()
      text += before + (words[name] ?? '')
      return { name, start, end: text }
    })
    text = (text + (this.slots.at(-1)?.before ?? '')).trimEnd()
    const ids = reader.ids(text)
    const spans = new Map(
      pieces
        .filter(({ name }) => located.includes(name))
        .map(({ name, start, end }) => [name, { first: tokensOf(reader, start, ids), last: tokensOf(reader, end, ids) - 1 }]),
    )
    const span = (slot: string) => spans.get(slot) ?? { first: -1, last: -1 }
    const token = (slot: string) => {
      const { first, last } = span(slot)
      if (first === last) return first
      throw notOneToken(words[slot] ?? '', 'in its sentence', reader.texts(ids.slice(first, last + 1)))
    }
    return { text, ids, span, token, answer: (word) => reader.tokenOrRefused(text, this.joint + word) }
  }
}

/** How many of a prompt's tokens its beginning is. */
function tokensOf(reader: Reader, beginning: string, ids: readonly number[]): number {
  const own = reader.ids(beginning)
  if (isPrefix(own, ids)) return own.length
  throw notOneToken(beginning, `as ${JSON.stringify(beginning)} goes on`, reader.texts(ids.slice(0, own.length)))
}
