import type { Table } from 'apache-arrow'
import { arrowTable, type Column } from './arrow.js'
import type { Dtype } from './device.js'
import { invalidArgument } from './errors.js'
import type { AppliedIntervention } from './intervention.js'
import { index } from './options.js'

/** Where numbers come from. */
export interface Provenance {
  /** Hugging Face `model_type`. */
  readonly family: string
  /** What the model ran on. */
  readonly device: string
  /** Why on this device. */
  readonly deviceReason: string
  /** What weights were held and multiplied in; all else is f32. */
  readonly dtype: Dtype
  /** Config keys that were accepted without being known: empty, unless the model was loaded with `allowUnknownConfig`. */
  readonly unknownConfig: readonly string[]
  /** What was changed in the run that this was computed from; absent where nothing was. */
  readonly interventions?: readonly AppliedIntervention[]
}

/** @internal What a model gives to its results. */
export interface Origin {
  readonly provenance: Provenance
  /** The text of a token, or its id where there is no tokenizer. */
  tokenText(id: number): string
  /** Reads these texts while the model is there: a result is looked at after its model was closed, too. */
  remember(ids: Uint32Array): void
  /** SHA-256 of config and weights; `undefined` where the model was closed before it was computed. */
  fingerprint(): Promise<string | undefined>
}

/** @internal Rows and prompts as the addon returns them. */
export interface NativeRows {
  readonly rowPrompt: Uint32Array
  readonly rowPosition: Uint32Array
  readonly ids: Uint32Array
  readonly idOffsets: Uint32Array
}

/** Numbers about rows (prompt, position) of some prompts. */
export abstract class Result {
  /** What the numbers are worth: observed, or the effect of a change that was made. */
  abstract readonly kind: 'observed' | 'causal'
  /** What each row is: prompts in order, positions rising; a BOS token counts as a position. */
  readonly rows: { readonly prompt: Uint32Array; readonly position: Uint32Array }
  /** Where the numbers come from. */
  readonly provenance: Provenance

  /** @internal */
  protected readonly origin: Origin
  readonly #ids: Uint32Array
  readonly #offsets: Uint32Array

  /** @internal */
  constructor(native: NativeRows, origin: Origin) {
    this.rows = Object.freeze({ prompt: native.rowPrompt, position: native.rowPosition })
    this.provenance = origin.provenance
    this.origin = origin
    this.#ids = native.ids
    this.#offsets = native.idOffsets
    origin.remember(native.ids)
    Object.defineProperty(this, 'origin', { enumerable: false })
  }

  /** Number of prompts. */
  get nPrompts(): number {
    return this.#offsets.length - 1
  }

  /** The ids of a prompt as they were run, BOS included. */
  ids(prompt: number): Uint32Array {
    const i = index('prompt', prompt, this.nPrompts)
    return this.#ids.subarray(this.#offsets[i], this.#offsets[i + 1])
  }

  /** The texts of a prompt's tokens; their ids where the model has no tokenizer. */
  tokens(prompt: number): string[] {
    return Array.from(this.ids(prompt), (id) => this.origin.tokenText(id))
  }

  /** @internal Ids and texts of every prompt, for JSON. */
  protected get prompts(): { readonly ids: number[]; readonly tokens: string[] }[] {
    return Array.from({ length: this.nPrompts }, (_, i) => ({ ids: [...this.ids(i)], tokens: this.tokens(i) }))
  }

  /** @internal A table that says which prompts its numbers are of. */
  protected table(columns: Readonly<Record<string, Column>>, metadata: Readonly<Record<string, string>>): Promise<Table> {
    const ids = JSON.stringify(Array.from({ length: this.nPrompts }, (_, i) => [...this.ids(i)]))
    return arrowTable(columns, this.origin, { ids, ...metadata })
  }

  /** @internal The number of rows; a row's index is checked against it. */
  protected rowIndex(i: number): number {
    return index('row', i, this.rows.prompt.length)
  }

  /** @internal Prompt and position of a row. */
  protected rowOf(i: number): { readonly prompt: number; readonly position: number } {
    const at = this.rowIndex(i)
    return { prompt: this.rows.prompt[at] ?? 0, position: this.rows.position[at] ?? 0 }
  }
}

/**
 * What was read from forward passes without changing anything in them: it shows where an effect can be seen, not what
 * causes it. Of a run with interventions, `provenance.interventions` says what was changed before. Every result of attribution is of this kind.
 */
export abstract class Observed extends Result {
  /** What the numbers are worth. */
  readonly kind = 'observed' as const
}

/** @internal That a result has rows to reduce. */
export function checkRows(rows: number): void {
  if (rows === 0) throw invalidArgument('result', 'without rows', 'at least one row')
}

/** @internal Where each of several lists begins when they stand one behind the other, and where the last ends. */
export function offsetsOf(lengths: Iterable<number>): Uint32Array {
  let end = 0
  return Uint32Array.from([0, ...Array.from(lengths, (length) => (end += length))])
}

/** @internal The first rows of a result, a line each, and how many more there are. */
export function firstLines(rows: number, line: (i: number) => string): string[] {
  const shown = Array.from({ length: Math.min(rows, 3) }, (_, i) => `  ${line(i)}`)
  return rows > 3 ? [...shown, `  … ${rows - 3} more ${rows === 4 ? 'row' : 'rows'}`] : shown
}
