// Lists of words, and which of them a tokenizer allows.
import { invalidArgument, PrismError } from '../errors.js'
import type { LeftOut } from './dataset.js'
import type { Reader } from './reader.js'
import { Template } from './template.js'

/** A list of different texts that are not empty, or the default. */
export function textList(argument: string, list: unknown, otherwise: readonly string[]): readonly string[] {
  if (list === undefined) return otherwise
  const isText = (text: unknown): text is string => typeof text === 'string' && text.trim() === text && text !== ''
  if (Array.isArray(list) && list.length > 0 && list.every(isText) && new Set(list).size === list.length) return [...list]
  throw invalidArgument(argument, list, 'a list of different texts without spaces around them')
}

/** What a tokenizer leaves of the lists of a data set. */
export class Sieve {
  readonly leftOut: LeftOut[] = []

  constructor(readonly reader: Reader) {}

  /** Words that are one token, each its own, in every one of these places: a text, and the spaces in front of the word. */
  oneToken(
    list: string,
    words: readonly string[],
    places: readonly (readonly [text: string, joint: string])[],
    needed: number,
  ): string[] {
    const taken = new Set<number | undefined>()
    const kept = words.filter((word) => {
      const bad = places.find(([text, joint]) => this.reader.token(text, joint + word) === undefined)
      if (bad) return this.#leave(list, word, this.reader.knows(word) ? 'not one token' : 'unknown', bad)
      const ids = places.map(([text, joint]) => this.reader.token(text, joint + word))
      if (ids.some((id) => taken.has(id))) return this.#leave(list, word, 'same token', places[0] ?? ['', ''])
      for (const id of ids) taken.add(id)
      return true
    })
    return this.#enough(list, kept, words.length, needed)
  }

  /** Words whose every piece the vocabulary has. */
  known(list: string, words: readonly string[], needed: number): string[] {
    const kept = words.filter((word) => this.reader.knows(word) || this.#leave(list, word, 'unknown', ['', '']))
    return this.#enough(list, kept, words.length, needed)
  }

  /** Templates whose every piece the vocabulary has. */
  templates(templates: readonly Template[]): Template[] {
    const kept = templates.filter((template) => {
      const part = template.unknownPart(this.reader)
      if (part === undefined) return true
      this.leave('templates', template.text, 'unknown', this.reader.pieces('', part))
      return false
    })
    return this.#enough('templates', kept, templates.length, 1)
  }

  /** Notes a fact that has no use. */
  leave(list: string, word: string, reason: LeftOut['reason'], pieces: readonly string[]): void {
    this.leftOut.push(Object.freeze({ list, word, reason, pieces }))
  }

  #leave(list: string, word: string, reason: LeftOut['reason'], [text, joint]: readonly [string, string]): false {
    this.leave(list, word, reason, this.reader.pieces(text, joint + word))
    return false
  }

  #enough<T>(list: string, kept: T[], of: number, needed: number): T[] {
    if (of < needed) throw invalidArgument(list, Array(of), `a list of at least ${needed}`)
    if (kept.length >= needed) return kept
    throw tooFew(list, { kept: kept.length, of, needed }, this.leftOut)
  }
}

/** That a tokenizer leaves too little of a list. */
export function tooFew(
  list: string,
  { kept, of, needed }: { readonly kept: number; readonly of: number; readonly needed: number },
  leftOut: readonly LeftOut[],
): PrismError {
  const out = leftOut.filter((one) => one.list === list)
  const first = out.slice(0, 3).map(({ word, reason, pieces }) => `'${word}' (${reason}: ${JSON.stringify(pieces)})`)
  const message = `${kept} of ${of} ${list} can be used with this tokenizer, and ${needed} are needed; left out: ${first.join(', ')}${out.length > 3 ? ', …' : ''}`
  return new PrismError('NOT_ONE_TOKEN', message, { list, kept, of, needed, leftOut: out })
}

/** The different places of some slots: the text between the slot before and this one, and the spaces in front of the word. */
export function placesOf(templates: readonly Template[], slots: readonly string[]): [text: string, joint: string][] {
  const befores = templates.flatMap(({ slots: all }) => all.filter(({ name }) => slots.includes(name)).map(({ before }) => before))
  return [...new Set(befores)].map((before) => [before.trimEnd(), before.slice(before.trimEnd().length)])
}
