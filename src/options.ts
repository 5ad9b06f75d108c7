import { invalidArgument, unknownName } from './errors.js'

/** That an options object has no key but the known ones. */
export function checkKeys(what: string, options: unknown, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) throw invalidArgument(what, options, 'an object')
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) throw unknownName('UNKNOWN_OPTION', `${what}: option`, key, [...known])
  }
}

/** One of a few names, or the default. */
export function oneOf<T extends string>(argument: string, value: unknown, names: readonly T[], otherwise: T): T {
  if (value === undefined) return otherwise
  if (names.includes(value as T)) return value as T
  throw invalidArgument(argument, value, names.map((name) => `'${name}'`).join(' or '))
}

/** A whole number in a range, or nothing. */
export function wholeNumber(argument: string, value: unknown, from: number, to: number): number | undefined {
  if (value === undefined) return undefined
  if (Number.isInteger(value) && (value as number) >= from && (value as number) <= to) return value as number
  throw invalidArgument(argument, value, `a whole number from ${from} to ${to}`)
}

/** The index of one of `length` things. */
export function index(argument: string, value: unknown, length: number): number {
  const found = value === undefined ? Number.NaN : value
  if (Number.isInteger(found) && (found as number) >= 0 && (found as number) < length) return found as number
  throw invalidArgument(argument, value, length === 0 ? 'nothing: there are none' : `a whole number from 0 to ${length - 1}`)
}

/** `true`, `false` or nothing. */
export function optionalFlag(argument: string, value: unknown): boolean | undefined {
  if (value === undefined || typeof value === 'boolean') return value
  throw invalidArgument(argument, value, 'true or false')
}
