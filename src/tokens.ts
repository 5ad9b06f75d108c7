import { invalidArgument, native } from './errors.js'
import type { NativeModel } from './native.js'
import { checkKeys, optionalFlag } from './options.js'

/** Text, tokenised as the checkpoint's tokenizer does it, or token ids, run verbatim. */
export type Prompt = string | readonly number[] | Uint32Array

/** An id, or a text that must be exactly one token where it stands: behind a prompt given as text, else alone. */
export type Token = number | string

/** A checkpoint's tokenizer. */
export class Tokenizer {
  readonly #model: NativeModel

  /** @internal */
  constructor(model: NativeModel) {
    this.#model = model
  }

  /**
   * The ids of a text, as `AutoTokenizer` of `transformers` 5 gives them: with the special tokens that tokenizer.json puts
   * in front, whatever `add_bos_token` of tokenizer_config.json says; without those that it would append.
   *
   * @param options.prependBos put a BOS token in front, or leave it out, whatever the tokenizer does
   * @throws {PrismError} `TOKENIZER_INVALID`, `INVALID_ARGUMENT`, `CLOSED`
   */
  encode(text: string, options: { readonly prependBos?: boolean } = {}): Uint32Array {
    checkKeys('encode', options, ['prependBos'])
    const prependBos = optionalFlag('prependBos', options.prependBos)
    return native(() => this.#model.encode(asText('text', text), prependBos))
  }

  /**
   * The text of some ids, special tokens included.
   *
   * @throws {PrismError} `TOKENIZER_INVALID`, `INVALID_ARGUMENT`, `CLOSED`
   */
  decode(ids: readonly number[] | Uint32Array): string {
    return native(() => this.#model.decode(asIds('ids', ids)))
  }

  /** The id of an entry of the vocabulary, exactly as it stands there. */
  tokenToId(token: string): number | undefined {
    return native(() => this.#model.tokenToId(asText('token', token))) ?? undefined
  }

  /** The id that stands for what the vocabulary does not have, if there is one. */
  get unknownToken(): number | undefined {
    return native(() => this.#model.unknownToken()) ?? undefined
  }

  /** The entry of an id in the vocabulary. */
  idToToken(id: number): string | undefined {
    return native(() => this.#model.idToToken(asIds('id', [id])[0] ?? 0)) ?? undefined
  }
}

/** @internal A prompt as the addon takes it. */
export function nativePrompt(prompt: unknown, index: number): string | Uint32Array {
  if (typeof prompt === 'string') return wellFormed(`prompt ${index}`, prompt)
  if (prompt instanceof Uint32Array || Array.isArray(prompt)) return asIds(`prompt ${index}`, prompt)
  throw invalidArgument(`prompt ${index}`, prompt, 'a text, or token ids (number[] or Uint32Array)')
}

/** @internal A token, or a non-empty list of tokens, as the addon takes them. */
export function nativeTokens(argument: string, tokens: unknown): (number | string)[] {
  return Array.from(Array.isArray(tokens) ? tokens : [tokens], (token: unknown) => {
    if (isId(token)) return token
    if (typeof token === 'string') return wellFormed(argument, token)
    throw invalidArgument(argument, token, 'a token: an id or a text')
  })
}

function asIds(argument: string, ids: unknown): Uint32Array {
  if (ids instanceof Uint32Array) return ids
  const list: unknown[] | undefined = Array.isArray(ids) ? Array.from(ids) : undefined // a hole becomes undefined, and is refused
  if (list?.every(isId)) return Uint32Array.from(list)
  throw invalidArgument(argument, list ? list.find((id) => !isId(id)) : ids, 'token ids: whole numbers from 0 on')
}

function asText(argument: string, text: unknown): string {
  if (typeof text === 'string') return wellFormed(argument, text)
  throw invalidArgument(argument, text, 'a text')
}

function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32
}

/** Half of a character pair cannot be written in UTF-8: it would silently become another character. */
function wellFormed(argument: string, text: string): string {
  if (!/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/.test(text)) return text
  throw invalidArgument(argument, text, 'well-formed Unicode: it holds half of a surrogate pair')
}
