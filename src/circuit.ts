import { call, CALL_OPTIONS, type CallOptions } from './calls.js'
import { invalidArgument, native } from './errors.js'
import type { Loaded } from './loaded.js'
import type { NativeCircuit, NativeModel } from './native.js'
import type { Provenance } from './observed.js'
import { checkKeys, optionalFlag, wholeNumber } from './options.js'
import { Tensor } from './tensor.js'
import type { Token } from './tokens.js'

/** Options of {@link Model.circuit}. */
export interface CircuitOptions {
  /**
   * Fold γ and the centring of the norms around attention, and of the final norm, into the matrices. Default `true`; the
   * norms' scales, which depend on the token, are left out either way. {@link Circuit.notes} says what was done.
   */
  readonly foldNorms?: boolean
}

/** Options of {@link HeadCircuit.qk}; only layers with rotary positions take them. */
export interface QkOptions {
  /** Position of the query less position of the key, from 0 on. Default 0. */
  readonly offset?: number
  /** The mean over these offsets instead: the first and the last, both inclusive. */
  readonly average?: readonly [first: number, last: number]
  /** Prompt length, for scalings whose angles depend on it (dynamic NTK, longrope). Default: the length of training. */
  readonly length?: number
}

/** Options of `row` of a circuit. */
export interface TokenRowOptions extends CallOptions {
  /** Tokens each way. Default 10. */
  readonly k?: number
  /** Tokens to leave out: a list, or `'special'`: special and reserved tokens, and ids that the tokenizer does not have. */
  readonly mask?: 'special' | readonly Token[]
}

/** Options of {@link OvCircuit.copyingScore}. */
export interface CopyingOptions extends CallOptions {
  /** Tokens that are asked whether they are copied, drawn without replacement, or all. Default 1,000. */
  readonly sample?: number | 'all'
  /** Seed of the draw. Default 0. */
  readonly seed?: number
  /** Tokens that are neither drawn nor compete; the eigenvalues are of the whole vocabulary. As for `row`. */
  readonly mask?: 'special' | readonly Token[]
}

/** A complex number. */
export interface Complex {
  readonly re: number
  readonly im: number
}

/** A token and what a circuit gives it. */
export interface TokenValue {
  readonly id: number
  readonly text: string
  readonly value: number
}

/** The row of one token. */
export interface TokenRow {
  /** The token that is read: OV's source, QK's query. */
  readonly token: { readonly id: number; readonly text: string }
  /** Largest first. */
  readonly top: readonly TokenValue[]
  /** Smallest first. */
  readonly bottom: readonly TokenValue[]
}

/** The largest singular values of a circuit M with their vectors: `left[i] M = values[i] right[i]`, all of length 1. */
export interface SingularVectors {
  /** Largest first. */
  readonly values: Float64Array
  /** What is read: a direction of the residual stream each. For QK: of the query. */
  readonly left: Tensor<readonly ['singular', 'd_model']>
  /** What is written for it. For QK: the direction of the key. */
  readonly right: Tensor<readonly ['singular', 'd_model']>
}

/** How far an OV circuit copies. */
export interface CopyingScore {
  /**
   * Σ λ / Σ |λ| over the eigenvalues of the full circuit W_E OV W_U: 1 copies, −1 writes the opposite (Elhage et al. 2021,
   * "A Mathematical Framework for Transformer Circuits", on copying matrices). NaN where they are 0 but for rounding.
   */
  readonly eigenvalueShare: number
  /** Eigenvalues of W_E OV W_U that can differ from 0, at most dHead of them, largest magnitude first. */
  readonly eigenvalues: readonly Complex[]
  /** Share of the asked tokens whose own logit the head raises above that of every other token when it reads them. */
  readonly top1: number
  /** Mean rank of the asked tokens in their own rows: 1 is the best, of equal values a token is the last. */
  readonly meanRank: number
  /** How many tokens were asked. */
  readonly sampled: number
}

/** The two circuits of one attention head, from its weights alone: what it moves (OV), and where it looks (QK). */
export class HeadCircuit {
  readonly layer: number
  readonly head: number
  /** `L9H6` */
  readonly label: string
  readonly #model: Loaded
  readonly #foldNorms: boolean

  /** @internal */
  constructor(model: Loaded, layer: number, head: number, options: CircuitOptions) {
    checkKeys('circuit', options, ['foldNorms'])
    this.#model = model
    this.#foldNorms = optionalFlag('foldNorms', options.foldNorms) ?? true
    this.layer = layer
    this.head = head
    this.label = `L${layer}H${head}`
  }

  /**
   * What the head writes for what it reads: `W_V W_O`.
   *
   * @throws {PrismError} `CONFIG_UNSUPPORTED` for models that clip values: no matrix of the weights gives them
   */
  get ov(): OvCircuit {
    return new OvCircuit(this.#model, { layer: this.layer, head: this.head, kind: 'ov', foldNorms: this.#foldNorms })
  }

  /**
   * How much a query wants a key: `W_Q W_Kᵀ`; with rotary positions `W_Q R(offset) W_Kᵀ` at one offset, or its mean over a
   * range of them. Scores of the model are this times its scale, which the notes name.
   *
   * @throws {PrismError} `CONFIG_UNSUPPORTED` for models with norms of queries and keys, or clipped ones;
   * `INVALID_ARGUMENT` for offsets out of range, and for any where the layer has no rotary positions
   */
  qk(options: QkOptions = {}): QkCircuit {
    checkKeys('qk', options, ['offset', 'average', 'length'])
    const offsets = checkedOffsets(options)
    const length = wholeNumber('length', options.length, 1, 2 ** 31)
    return new QkCircuit(this.#model, {
      layer: this.layer,
      head: this.head,
      kind: 'qk',
      foldNorms: this.#foldNorms,
      ...(offsets === undefined ? {} : { offsets }),
      ...(length === undefined ? {} : { length }),
    })
  }
}

/**
 * A [dModel, dModel] matrix of a head's weights, held as its factors of width dHead: rows are what is read, columns what is
 * written (QK: the query's and the key's side). Vectors are rows: a published `W x` is `x W` here. Everything is computed
 * in f64, off the event loop.
 */
export abstract class Circuit {
  /** What the numbers are worth: they are read from weights, and no prompt shows that the head does this. */
  readonly kind = 'weights' as const
  /** What was folded in, what is left out, and what else holds for the numbers. */
  readonly notes: readonly string[]
  /** Where the numbers come from. */
  readonly provenance: Provenance

  /** @internal */
  protected readonly model: Loaded
  /** @internal */
  protected readonly spec: NativeCircuit
  #spectrum: ReturnType<NativeModel['circuitSpectrum']> | undefined

  /** @internal */
  constructor(model: Loaded, spec: NativeCircuit) {
    this.notes = Object.freeze(native(() => model.native.circuitNotes(spec)))
    this.provenance = model.origin.provenance
    this.model = model
    this.spec = spec
    for (const name of ['model', 'spec']) Object.defineProperty(this, name, { enumerable: false })
  }

  /**
   * The Frobenius norm: the root of the sum of all squares.
   *
   * @throws {PrismError} `NOT_FINITE`, `MEMORY`, `CLOSED`, `POISONED`, as every method here
   */
  async norm(): Promise<number> {
    return (await this.#numbers()).norm
  }

  /** The singular values that can differ from 0, min(dHead, dModel) of them, largest first. */
  async singularValues(): Promise<Float64Array> {
    return (await this.#numbers()).singularValues.slice()
  }

  /** The eigenvalues that can differ from 0, min(dHead, dModel) of them, largest magnitude first. */
  async eigenvalues(): Promise<Complex[]> {
    return complex((await this.#numbers()).eigenvalues)
  }

  /** The `k` largest singular values (default 1) with what is read and written for each. */
  async singularVectors(k = 1): Promise<SingularVectors> {
    const { dModel, dHead } = this.model.config
    const n = wholeNumber('k', k, 1, Math.min(dModel, dHead)) ?? 1
    const { values, left, right } = await call(this.model.native, {}, () => this.model.native.circuitVectors(this.spec, n))
    const vectors = (data: Float32Array) => new Tensor(data, [n, dModel], ['singular', 'd_model'] as const)
    return { values, left: vectors(left), right: vectors(right) }
  }

  /** The whole matrix, formed on request: [dModel, dModel]. */
  async matrix(): Promise<Tensor<readonly ['d_model', 'd_model']>> {
    const { dModel } = this.model.config
    const data = await call(this.model.native, {}, () => this.model.native.circuitMatrix(this.spec))
    return new Tensor(data, [dModel, dModel], ['d_model', 'd_model'] as const)
  }

  /** What the circuit is and what was folded into it; its numbers are asked for one by one. */
  toJSON(): Record<string, unknown> {
    const { kind, provenance, notes } = this
    return { kind, provenance, circuit: this.spec, notes }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const { kind, layer, head, offsets } = this.spec
    const at = offsets ? ` at offsets ${offsets.join(' to ')}` : ''
    return [`${kind.toUpperCase()} circuit of L${layer}H${head}${at}`, ...this.notes.map((note) => `  ${note}`)].join('\n')
  }

  /** @internal */
  protected async rowOf(what: string, token: Token, options: TokenRowOptions): Promise<TokenRow> {
    checkKeys(what, options, ['k', 'mask', ...CALL_OPTIONS])
    const { config, origin } = this.model
    const ids = this.model.tokenIds('token', [token])
    const mask = this.model.masked(options.mask)
    const k = wholeNumber('k', options.k, 1, config.dVocab) ?? Math.min(10, config.dVocab - new Set(mask).size)
    const { tokens, values } = await call(this.model.native, options, (cancel, report) =>
      this.model.native.circuitRows(this.spec, ids, k, mask, cancel, report),
    )
    const named = (id: number) => ({ id, text: origin.tokenText(id) })
    const list = Array.from(tokens, (id, i): TokenValue => ({ ...named(id), value: values[i] ?? Number.NaN }))
    return { token: named(ids[0] ?? 0), top: list.slice(0, k), bottom: list.slice(k) }
  }

  /** @internal */
  protected async scoreOf(names: readonly [string, string], token: Token, other: Token): Promise<number> {
    const [from, to] = [this.model.tokenIds(names[0], [token]), this.model.tokenIds(names[1], [other])]
    const [value = Number.NaN] = await call(this.model.native, {}, () => this.model.native.circuitScores(this.spec, from, to))
    return value
  }

  #numbers(): ReturnType<NativeModel['circuitSpectrum']> {
    this.#spectrum ??= call(this.model.native, {}, () => this.model.native.circuitSpectrum(this.spec))
    return this.#spectrum
  }
}

/** What a head writes for what it reads: `W_V W_O`. */
export class OvCircuit extends Circuit {
  /**
   * The tokens whose logits the head raises and lowers most when it reads `token`: the row of `W_E OV W_U` less its mean over
   * the vocabulary, up to the scales of the norms.
   *
   * @throws {PrismError} `TOKEN_RANGE`, `INVALID_ARGUMENT`, `UNKNOWN_OPTION`, `ABORTED`
   */
  row(token: Token, options: TokenRowOptions = {}): Promise<TokenRow> {
    return this.rowOf('row', token, options)
  }

  /** What reading `token` adds to the logit of `output`: one entry of `W_E OV W_U`, nothing taken off. */
  score(token: Token, output: Token): Promise<number> {
    return this.scoreOf(['token', 'output'], token, output)
  }

  /**
   * Whether the head writes what it reads, by two published measures: the eigenvalues of `W_E OV W_U`, and how often a token
   * is the one that its own row raises most.
   *
   * @throws {PrismError} `TOKEN_RANGE`, `INVALID_ARGUMENT`, `UNKNOWN_OPTION`, `ABORTED`
   */
  async copyingScore(options: CopyingOptions = {}): Promise<CopyingScore> {
    checkKeys('copyingScore', options, ['sample', 'seed', 'mask', ...CALL_OPTIONS])
    const sample = options.sample === 'all' ? undefined : (wholeNumber('sample', options.sample, 1, 2 ** 31) ?? 1000)
    const seed = wholeNumber('seed', options.seed, 0, 2 ** 32 - 1) ?? 0
    const mask = this.model.masked(options.mask)
    const result = await call(this.model.native, options, (cancel, report) =>
      this.model.native.circuitCopying(this.spec, sample, seed, mask, cancel, report),
    )
    return { ...result, eigenvalues: complex(result.eigenvalues) }
  }
}

/** How much a query wants a key: `W_Q R(offset) W_Kᵀ`. */
export class QkCircuit extends Circuit {
  /**
   * The tokens whose keys `token` as a query scores highest and lowest: the row of `W_E QK W_Eᵀ`, before the model's scale and
   * up to the scales of the norms.
   *
   * @throws {PrismError} `TOKEN_RANGE`, `INVALID_ARGUMENT`, `UNKNOWN_OPTION`, `ABORTED`
   */
  row(token: Token, options: TokenRowOptions = {}): Promise<TokenRow> {
    return this.rowOf('row', token, options)
  }

  /** One entry of `W_E QK W_Eᵀ`, before the model's scale and up to the scales of the norms. */
  score(query: Token, key: Token): Promise<number> {
    return this.scoreOf(['query', 'key'], query, key)
  }
}

function checkedOffsets({ offset, average }: QkOptions): [number, number] | undefined {
  if (average === undefined) {
    const one = wholeNumber('offset', offset, 0, 2 ** 31)
    return one === undefined ? undefined : [one, one]
  }
  if (offset !== undefined) throw invalidArgument('average', 'given with offset', 'one of the two')
  if (!Array.isArray(average) || average.length !== 2) throw invalidArgument('average', average, 'the first and the last offset')
  const [first = 0, last = 0] = average.map((each: unknown) => {
    const checked = wholeNumber('average', each, 0, 2 ** 31)
    if (checked === undefined) throw invalidArgument('average', each, 'a whole number')
    return checked
  })
  return [first, last]
}

function complex(pairs: Float64Array): Complex[] {
  return Array.from({ length: pairs.length / 2 }, (_, i) => ({ re: pairs[2 * i] ?? 0, im: pairs[2 * i + 1] ?? 0 }))
}
