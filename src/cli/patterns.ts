// What a head's pattern is called, in words and numbers.
import type { HeadPattern, PatternScore, PatternType } from '../attention.js'
import { quoted } from './text.js'

/** The name that fits best, whether or not well enough. */
export function strongest({ scores }: HeadPattern): [PatternType, PatternScore] {
  const entries = Object.entries(scores) as [PatternType, PatternScore][]
  const places = entries.filter(([name, { queries }]) => name !== 'uniform' && queries > 0)
  const [first] = places.sort(([, a], [, b]) => b.strength - a.strength)
  return first ?? ['uniform', scores.uniform]
}

/** A name, with what a column is of. */
export function named(head: HeadPattern, type: PatternType): string {
  return type === 'column' ? `column of ${columnOf(head)}` : type
}

/** The token or the class of a column. */
export function columnOf({ column }: HeadPattern): string {
  if (column === undefined) return 'nothing'
  return 'class' in column ? column.class : quoted(column.text)
}

/** Three decimals; a dash where no query counted. */
export function decimals(value: number): string {
  return Number.isNaN(value) ? '–' : value.toFixed(3).replace('-', '−')
}

/** What a head is called, in words. */
export function called(head: HeadPattern): string {
  return head.type === 'mixed' ? `mixed, most like ${named(head, strongest(head)[0])}` : named(head, head.type)
}
