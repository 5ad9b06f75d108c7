// What every data set is: prompts with their corrupted twins, targets, named positions, and what was left out and why.
import { invalidArgument, PrismError } from '../errors.js'
import { checkKeys, optionalFlag, wholeNumber } from '../options.js'
import { SplitMix } from '../random.js'
import type { Token } from '../tokens.js'

/** Options of every data set. */
export interface DataOptions {
  /** How many items. Default 100; of facts, all there are. */
  readonly n?: number
  /** Seed of what is drawn; the same seed gives the same items on every machine. Default 0. */
  readonly seed?: number
  /** Put a BOS token in front, or leave it out, whatever the tokenizer does. Ids and positions are those of the result. */
  readonly prependBos?: boolean
}

/** Names of {@link DataOptions}. */
export const DATA_OPTIONS = ['n', 'seed', 'prependBos'] as const

/** An answer and what it is compared with: the logit of a token, or the mean of several. */
export interface Choice {
  readonly answer: Token | readonly Token[]
  readonly against: Token | readonly Token[] | 'mean'
}

/** A choice between token ids. */
export interface IdChoice extends Choice {
  readonly answer: number | readonly number[]
  readonly against: number | readonly number[]
}

/** One prompt, its twin, and what is asked of both. `P`: the positions that have names. */
export interface DataItem<P extends string = string> {
  /** Token ids, as they are run: a BOS token in front if there is one. */
  readonly prompt: readonly number[]
  /** The twin without what the task needs: as many token ids. */
  readonly corrupted: readonly number[]
  /** The prompt as text. */
  readonly text: string
  /** The twin as text. */
  readonly corruptedText: string
  /** The prompt's right answer and its rival, for prompt and twin alike. */
  readonly target: IdChoice
  /** Positions of named tokens in the prompt, BOS counted. */
  readonly positions: Readonly<Record<P, number>>
  /** What stands in the template, by its name there. */
  readonly words: Readonly<Record<string, string>>
  /** The same in the twin. */
  readonly corruptedWords: Readonly<Record<string, string>>
  /** The sentence with its slots; what it is, where it was not made from one. */
  readonly template: string
  /** Which kind of item of its data set: `'ABBA'`, `'capital'`. */
  readonly variant: string
}

/** A word, template or fact that a data set could not use with this tokenizer. */
export interface LeftOut {
  /** Of which list: `names`, `templates`, `facts`, … */
  readonly list: string
  readonly word: string
  /** `unknown`: not in the vocabulary; `not one token`; `same token` as a word before it; `no twin` of the same length. */
  readonly reason: 'unknown' | 'not one token' | 'same token' | 'no twin'
  /** What the tokenizer makes of it. */
  readonly pieces: readonly string[]
}

/** What a data set was made from. */
interface About {
  readonly name: string
  readonly source: string
  readonly settings: Readonly<Record<string, unknown>>
  readonly leftOut: readonly LeftOut[]
  readonly seed: number
}

/**
 * Prompts for one task, each with a corrupted twin of as many tokens. Prompts and targets are token ids: what was checked is
 * what is run. Give `prompts` and `targets` to any call, or the whole to `model.evaluate`.
 */
export class Dataset<P extends string = string> implements Iterable<DataItem<P>> {
  /** `ioi`, `induction`, `facts`, `greater-than`. */
  readonly name: string
  /** The paper that it follows. */
  readonly source: string
  /** Seed of what was drawn. */
  readonly seed: number
  /** The options that it was made with, defaults included. */
  readonly settings: Readonly<Record<string, unknown>>
  /** In the order drawn. */
  readonly items: readonly DataItem<P>[]
  /** Token ids of every prompt. */
  readonly prompts: readonly (readonly number[])[]
  /** Token ids of every twin. */
  readonly corrupted: readonly (readonly number[])[]
  /** The target of every prompt and its twin. */
  readonly targets: readonly IdChoice[]
  /** Words, templates and facts that this tokenizer does not allow. */
  readonly leftOut: readonly LeftOut[]

  /** @internal Items whose twins are not as long as their prompts are refused. */
  constructor({ name, source, settings, leftOut, seed }: About, items: readonly DataItem<P>[]) {
    const uneven = items.findIndex(({ prompt, corrupted }) => prompt.length !== corrupted.length)
    if (uneven >= 0) {
      const [length, twin] = [items[uneven]?.prompt.length, items[uneven]?.corrupted.length]
      const message = `item ${uneven} of ${name} has ${length} tokens and its twin ${twin}`
      throw new PrismError('INTERNAL', message, { place: 'data', problem: message })
    }
    this.name = name
    this.source = source
    this.seed = seed
    this.settings = Object.freeze(settings)
    this.items = Object.freeze(items.map((item) => Object.freeze(item)))
    this.prompts = Object.freeze(items.map(({ prompt }) => prompt))
    this.corrupted = Object.freeze(items.map(({ corrupted }) => corrupted))
    this.targets = Object.freeze(items.map(({ target }) => target))
    this.leftOut = Object.freeze(leftOut)
  }

  /** How many items. */
  get length(): number {
    return this.items.length
  }

  /**
   * A named position of every prompt, as `position: { perPrompt }` takes it.
   *
   * @throws {PrismError} `INVALID_ARGUMENT` with the names that there are
   */
  positions(name: P): number[][] {
    const names = Object.keys(this.items[0]?.positions ?? {})
    if (!names.includes(name)) throw invalidArgument('name', name, names.map((known) => `'${known}'`).join(' or '))
    return this.items.map(({ positions }) => [positions[name]])
  }

  /** Item by item. */
  [Symbol.iterator](): Iterator<DataItem<P>> {
    return this.items[Symbol.iterator]()
  }

  /** Everything, as plain data. */
  toJSON(): Record<string, unknown> {
    const { name, source, seed, settings, leftOut, items } = this
    return { name, source, seed, settings, leftOut, items }
  }

  /** The items as JSON, one a line. */
  toJSONL(): string {
    return this.items.map((item) => `${JSON.stringify(item)}\n`).join('')
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const left = this.leftOut.length === 0 ? '' : `, ${this.leftOut.length} left out`
    const lines = this.items.slice(0, 3).map(({ text }) => `  ${text}`)
    const more = this.length > 3 ? [`  … ${this.length - 3} more`] : []
    return [`Dataset: ${this.name}, ${this.length} items, seed ${this.seed}${left}`, ...lines, ...more].join('\n')
  }
}

/** @internal The options of every data set, checked, and the generator. */
export function dataOptions(what: string, options: DataOptions, own: readonly string[] = []) {
  checkKeys(what, options, [...DATA_OPTIONS, ...own])
  const n = wholeNumber('n', options.n, 1, 1_000_000)
  const seed = wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0
  return { n, seed, prependBos: optionalFlag('prependBos', options.prependBos), random: new SplitMix(seed) }
}
