// Texts as a model reads them, and which token of a prompt a word became.
import { PrismError } from '../errors.js'
import type { Model } from '../model.js'
import type { Tokenizer } from '../tokens.js'

/** A model's tokenizer, with or without a BOS token in front. */
export class Reader {
  readonly #tokenizer: Tokenizer
  readonly #options: { readonly prependBos?: boolean }
  readonly #unknown: number | undefined

  /** @throws {PrismError} `TOKENIZER_MISSING` */
  constructor(model: Model, neededFor: string, prependBos?: boolean) {
    if (!model.tokenizer) {
      const message = `this checkpoint has no tokenizer.json, which is needed for ${neededFor}`
      throw new PrismError('TOKENIZER_MISSING', message, { neededFor })
    }
    this.#tokenizer = model.tokenizer
    this.#options = prependBos === undefined ? {} : { prependBos }
    this.#unknown = model.tokenizer.unknownToken
  }

  /** The ids of a prompt, as the model runs it. */
  ids(text: string): number[] {
    return [...this.#tokenizer.encode(text, this.#options)]
  }

  /** The ids that `more` adds behind `text`; `undefined` where it changes those of the text. */
  behind(text: string, more: string): number[] | undefined {
    const [before, all] = [this.ids(text), this.ids(text + more)]
    return isPrefix(before, all) ? all.slice(before.length) : undefined
  }

  /** The id of `more` behind `text`, where it is exactly one token that the vocabulary has. */
  token(text: string, more: string): number | undefined {
    const ids = this.behind(text, more)
    return ids?.length === 1 && ids[0] !== this.#unknown ? ids[0] : undefined
  }

  /** As {@link token}, or a refusal. @throws {PrismError} `NOT_ONE_TOKEN` */
  tokenOrRefused(text: string, more: string): number {
    const id = this.token(text, more)
    if (id === undefined) throw notOneToken(more, 'behind the prompt', this.pieces(text, more))
    return id
  }

  /** What `more` becomes behind `text`, in words. */
  pieces(text: string, more: string): string[] {
    return this.texts(this.behind(text, more) ?? this.#alone(more))
  }

  /** Every id in words. */
  texts(ids: readonly number[]): string[] {
    return ids.map((id) => this.#tokenizer.decode([id]))
  }

  /** Whether the vocabulary has every piece of a text. */
  knows(text: string): boolean {
    return this.#unknown === undefined || !this.#alone(text).includes(this.#unknown)
  }

  #alone(text: string): number[] {
    return [...this.#tokenizer.encode(text, { prependBos: false })]
  }
}

/** The core's error for a text that is not one token, where the facade finds it. */
export function notOneToken(text: string, place: string, pieces: readonly string[]): PrismError {
  const shown = pieces.map((piece) => JSON.stringify(piece)).join(', ')
  const message = `${JSON.stringify(text)} is not one token ${place}: it becomes [${shown}]`
  return new PrismError('NOT_ONE_TOKEN', message, { text, place, pieces })
}

/** Whether a list begins with another. */
export function isPrefix(start: readonly number[], list: readonly number[]): boolean {
  return start.length <= list.length && start.every((value, i) => list[i] === value)
}
