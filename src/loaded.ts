import { call } from './calls.js'
import { type Component, frozen } from './components.js'
import type { ModelConfig } from './config.js'
import type { Placement } from './device.js'
import { invalidArgument, native } from './errors.js'
import { deepFreeze } from './freeze.js'
import type { NativeModel } from './native.js'
import type { Origin } from './observed.js'
import { nativeTokens, Tokenizer } from './tokens.js'

/** @internal A loaded model as calls and results see it; {@link Model} is its face. */
export class Loaded {
  /** What the addon holds. */
  readonly native: NativeModel
  /** Where it lies. */
  readonly placement: Placement
  /** Frozen. */
  readonly config: ModelConfig
  readonly tokenizer: Tokenizer | undefined
  /** What every result is given. */
  readonly origin: Origin

  readonly #texts = new Map<number, string>()
  readonly #columns = new Map<'layer' | 'head' | 'neuron', readonly Component[]>()
  #fingerprint: Promise<string> | undefined
  #closing: Promise<void> | undefined

  constructor(model: NativeModel, placement: Placement) {
    this.native = model
    this.placement = placement
    this.config = deepFreeze(JSON.parse(model.config()) as ModelConfig)
    this.tokenizer = model.hasTokenizer() ? new Tokenizer(model) : undefined
    const { family, unknownKeys: unknownConfig } = this.config
    const { device, dtype, reason: deviceReason } = placement
    this.origin = {
      provenance: Object.freeze({ family, device, deviceReason, dtype, unknownConfig }),
      tokenText: (id) => this.tokenText(id),
      remember: (ids) => ids.forEach((id) => this.tokenText(id)),
      fingerprint: () => this.fingerprint.catch(() => undefined),
    }
  }

  /** A token's text, remembered; its id where the tokenizer has none: weights are often padded to more tokens. */
  tokenText(id: number): string {
    const known = this.#texts.get(id)
    if (known !== undefined) return known
    if (!this.tokenizer || this.closed || this.tokenizer.idToToken(id) === undefined) return `#${id}`
    const text = this.tokenizer.decode([id])
    this.#texts.set(id, text)
    return text
  }

  /** The ids of tokens outside of any prompt: each text must be one token alone. */
  tokenIds(argument: string, tokens: readonly unknown[]): Uint32Array {
    return Uint32Array.from(nativeTokens(argument, tokens), (token) => {
      if (typeof token === 'number') return token
      const ids = this.tokenizer?.encode(token, { prependBos: false })
      if (ids?.length === 1) return ids[0] ?? 0
      throw invalidArgument(argument, token, 'one token alone')
    })
  }

  /** The tokens that no text is made of: special and reserved ones, and ids that the tokenizer does not have. */
  specialTokens(): Uint32Array {
    return native(() => this.native.specialTokens())
  }

  /** Tokens to leave out. */
  masked(mask: unknown): Uint32Array {
    if (mask === undefined) return new Uint32Array()
    if (mask === 'special') return this.specialTokens()
    if (!Array.isArray(mask)) throw invalidArgument('mask', mask, "'special', or a list of tokens")
    return this.tokenIds('mask', mask)
  }

  /** What the columns of a result are. One list for all results: there may be hundreds of thousands of neurons. */
  components(unit: 'layer' | 'head' | 'neuron'): readonly Component[] {
    const components = this.#columns.get(unit) ?? frozen(native(() => this.native.components(unit)))
    this.#columns.set(unit, components)
    return components
  }

  /** Computed once. */
  get fingerprint(): Promise<string> {
    this.#fingerprint ??= call(this.native, {}, () => this.native.fingerprint())
    return this.#fingerprint
  }

  get closed(): boolean {
    return this.#closing !== undefined
  }

  close(): Promise<void> {
    this.#closing ??= this.native.close()
    return this.#closing
  }
}
