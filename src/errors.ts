import { nearest } from './native.js'

/** Every code of a {@link PrismError}. The table is the core's; a test compares the two. */
export type PrismErrorCode =
  | 'IO_ERROR'
  | 'CONFIG_INVALID'
  | 'CONFIG_UNSUPPORTED'
  | 'CHECKPOINT_INVALID'
  | 'CHECKPOINT_MISSING'
  | 'TENSOR_MISSING'
  | 'TENSOR_UNEXPECTED'
  | 'TENSOR_SHAPE'
  | 'TENSOR_DTYPE'
  | 'PICKLE_REFUSED'
  | 'TOKENIZER_INVALID'
  | 'TOKENIZER_MISSING'
  | 'NOT_ONE_TOKEN'
  | 'TOKEN_RANGE'
  | 'PROMPT_EMPTY'
  | 'PROMPT_TOO_LONG'
  | 'POSITION_RANGE'
  | 'UNKNOWN_HOOK'
  | 'UNKNOWN_OPTION'
  | 'INVALID_ARGUMENT'
  | 'NOT_CACHED'
  | 'DEVICE_UNAVAILABLE'
  | 'MEMORY'
  | 'NOT_FINITE'
  | 'INCOMPLETE'
  | 'ABORTED'
  | 'CLOSED'
  | 'POISONED'
  | 'INTERNAL'

/**
 * Everything that logit-prism throws or rejects with. `code` is stable, `details` holds the fields of the error (what
 * was found, what was expected), and the message says both and what to do.
 */
export class PrismError extends Error {
  /** Always `'PrismError'`. */
  override readonly name = 'PrismError'
  /** What happened, stable across versions. */
  readonly code: PrismErrorCode
  /** The same in fields: what was found, what was expected; their names depend on the code. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: PrismErrorCode, message: string, details: Record<string, unknown> = {}, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.details = Object.freeze(details)
  }
}

/** The error for an argument that is not what a function takes. */
export function invalidArgument(argument: string, found: unknown, expected: string): PrismError {
  const shown = describe(found)
  return new PrismError('INVALID_ARGUMENT', `${argument} is ${shown}; expected ${expected}`, { argument, found: shown, expected })
}

/** The error for a name that is not among the known ones, with the nearest. */
export function unknownName(code: PrismErrorCode, what: string, name: string, known: string[]): PrismError {
  const near = nearest(name, known)
  const hint = near.length > 0 ? `did you mean ${near.map((n) => `'${n}'`).join(' or ')}?` : `known: ${known.join(', ')}`
  return new PrismError(code, `${what} '${name}' is unknown; ${hint}`, { name, nearest: near })
}

/** What a native call threw, as a {@link PrismError}: the only place where native errors are turned into ours. */
export function fromNative(error: unknown): PrismError {
  if (error instanceof PrismError) return error
  const { message = String(error), code, details } = (error ?? {}) as { message?: string; code?: string; details?: string }
  if (typeof details === 'string') {
    return new PrismError(code as PrismErrorCode, message, JSON.parse(details), { cause: error })
  }
  const problem = `internal error in the addon: ${message}; please report it`
  return new PrismError('INTERNAL', problem, { place: 'addon', problem: message }, { cause: error })
}

/** Runs a synchronous native call. */
export function native<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromNative(error)
  }
}

function describe(value: unknown): string {
  if (typeof value === 'string') return value.length > 60 ? `'${value.slice(0, 60)}…'` : `'${value}'`
  if (Array.isArray(value)) return `a list of ${value.length}`
  if (value === null || typeof value !== 'object') return String(value)
  return `an object of ${value.constructor?.name ?? 'no class'}`
}
