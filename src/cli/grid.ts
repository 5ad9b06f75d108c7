// Signed numbers in rows and columns on a terminal: blue below 0, orange above, each cell with its number where there is room for
// it, else as a block; without colours shades, and signs for what is below 0.
import type { Terminal } from './terminal.js'
import { fill, width, wrap } from './text.js'

/** Colours of the 256 from −1 to 1, dark where the magnitude is large; in the middle those of the terminal. */
const BELOW = [25, 67, 110]
const ABOVE = [223, 215, 208]
/** Where the colours and shades begin. */
const LIMITS = [0.05, 0.25, 0.6]
const SHADES = { above: ['░', '▒', '█'], below: ['-', '=', '#'] }

/** What a grid shows. */
export interface Grid {
  readonly rows: readonly string[]
  /** Short ones: they stand above their cells, digit below digit where these are narrow. */
  readonly columns: readonly string[]
  readonly values: readonly (readonly number[])[]
  /** The value that is as dark as can be. */
  readonly full: number
  /** A number of the grid as text. */
  readonly text: (value: number) => string
}

/** The lines of a grid that is no wider than the screen: of more columns than fit the last ones, and it says so. */
export function gridLines({ rows, columns, values, full, text }: Grid, screen: Terminal): string[] {
  const label = Math.max(...rows.map(width))
  const room = Math.max(8, screen.columns - label - 4)
  const numbers = 1 + Math.max(...values.flat().map((value) => text(value).length), ...columns.map((column) => column.length))
  const cell = [numbers, 2, 1].find((wide) => wide * columns.length <= room) ?? 1
  const from = Math.max(0, columns.length - Math.floor(room / cell))
  const shown = columns.slice(from)
  const paint = (value: number) => {
    const content = cell === numbers ? text(value).padStart(cell) : undefined
    const level = LIMITS.filter((limit) => Math.abs(value) >= limit * full).length
    if (screen.colours >= 256) return painted(content ?? ' '.repeat(cell), value, level)
    const shade = SHADES[value < 0 ? 'below' : 'above'][level - 1] ?? '·'
    return content ?? shade.repeat(cell)
  }
  const lines = rows.map((row, i) => {
    const cells = (values[i] ?? []).slice(from).map(paint)
    return `  ${fill(row, label)} ${cells.join('')}`.trimEnd()
  })
  const head = heads(shown, cell, cell === numbers).map((line) => screen.dim(`  ${' '.repeat(label)} ${line}`.trimEnd()))
  const left = from > 0 ? [`The last ${shown.length} of ${columns.length} columns.`] : []
  const signs = cell === numbers || screen.colours >= 256 ? [] : [legend(full, text)]
  return [
    ...head,
    ...lines,
    ...[...left, ...signs].flatMap((line) => wrap(line, screen.columns - 4)).map((line) => screen.dim(`  ${line}`)),
  ]
}

/** The labels of columns: beside each other, or one character below the other. */
function heads(labels: readonly string[], cell: number, beside: boolean): string[] {
  if (beside) return [labels.map((label) => label.padStart(cell)).join('')]
  const height = Math.max(...labels.map((label) => label.length))
  return Array.from({ length: height }, (_, line) =>
    labels.map((label) => (label.padStart(height)[line] ?? ' ').padEnd(cell)).join(''),
  )
}

function painted(content: string, value: number, level: number): string {
  if (level === 0) return content
  const colour = value < 0 ? BELOW[LIMITS.length - level] : ABOVE[level - 1]
  const ink = value < 0 && level === LIMITS.length ? 231 : 16
  return `\u001b[38;5;${ink};48;5;${colour}m${content}\u001b[0m`
}

function legend(full: number, text: (value: number) => string): string {
  const from = LIMITS.map((limit) => text(limit * full).trim())
  return `${SHADES.above.map((shade, i) => `${shade} from ${from[i]}`).join('  ')}; below 0: ${SHADES.below.join(' ')}`
}
