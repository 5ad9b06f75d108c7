// An attention pattern on a terminal: two queries in a line of half blocks where there are 256 colours, else a line of
// shades for each. Both halves of a cell get a colour of their own, so the picture is the same on dark and light grounds.
import type { Tensor } from '../tensor.js'
import type { Terminal } from './terminal.js'
import { fill, quoted, width, wrap } from './text.js'

/** Colours of the 256 from 0 to 1: dark grey over violet and red to pale yellow. */
const RAMP = [234, 53, 89, 125, 161, 203, 209, 215, 222, 230]
const SHADES = [' ', '░', '▒', '▓', '█']
/** Where the shades begin, as shares. */
const LIMITS = [0.05, 0.25, 0.5, 0.75]
const LABEL = 14

/** Lines of the queries and keys that fit: the last ones of a long prompt; what they give to the keys before is one column. */
export function heatLines(pattern: Tensor<['query_pos', 'key_pos']>, tokens: readonly string[], screen: Terminal): string[] {
  const halves = screen.colours >= 256
  const n = tokens.length
  const label = (q: number) => `${String(q).padStart(String(n - 1).length)} ${quoted(tokens[q] ?? '', LABEL - 2)}`
  const longest = Math.max(...tokens.map((_, q) => width(label(q))))
  const margin = halves ? 2 * longest + 2 : longest // in front of two queries stand the labels of both
  const room = Math.max(8, screen.columns - margin - 5)
  const cell = 2 * n <= room ? 2 : 1
  const from = n * cell <= room ? 0 : n - (room - 1) // one column for what is left out
  const keys = Array.from({ length: n - from }, (_, i) => from + i)

  const value = (q: number, k: number) => (q < n && k <= q ? pattern.at(q, k) : undefined)
  const before = (q: number) => {
    if (q >= n) return undefined
    return Array.from({ length: from }, (_, k) => pattern.at(q, k)).reduce((sum, share) => sum + share, 0)
  }
  const row = (q: number) => [...(from > 0 ? [before(q)] : []), ...keys.map((k) => value(q, k))]

  const lines = header(keys, from > 0, cell).map((text) => `  ${' '.repeat(margin)} ${text}`.trimEnd())
  for (let q = from; q < n; q += halves ? 2 : 1) {
    const [upper, lower] = [row(q), row(q + 1)]
    const labels = halves ? `${fill(label(q), longest)}  ${fill(q + 1 < n ? label(q + 1) : '', longest)}` : fill(label(q), longest)
    const cells = upper.map((share, i) => (halves ? halfBlock(share, lower[i], cell) : shade(share).repeat(cell)))
    lines.push(`  ${labels} ${cells.join('')}`.trimEnd())
  }
  const left = from > 0 ? [`The last ${keys.length} of ${n} tokens; the first column, «, is all that lies before.`] : []
  const notes = left.flatMap((text) => wrap(text, screen.columns - 4)).map((text) => screen.dim(`  ${text}`))
  return [...lines, '', legend(halves), ...notes]
}

/** The numbers of the keys, digits below each other. */
function header(keys: readonly number[], cut: boolean, cell: number): string[] {
  const digits = String(keys.at(-1) ?? 0).length
  return Array.from({ length: digits }, (_, line) => {
    const columns = keys.map((k) => (String(k).padStart(digits)[line] ?? ' ').padEnd(cell))
    return `${cut ? (line === digits - 1 ? '«' : ' ') : ''}${columns.join('')}`
  })
}

function shade(share: number | undefined): string {
  if (share === undefined) return ' '
  return SHADES[LIMITS.filter((limit) => share >= limit).length] ?? ' '
}

function colour(share: number): number {
  return RAMP[Math.min(RAMP.length - 1, Math.max(0, Math.floor(share * RAMP.length)))] ?? 0
}

/** One query above, the next below; what the mask hides is the terminal's own ground. */
function halfBlock(upper: number | undefined, lower: number | undefined, cell: number): string {
  const paint = (codes: string, block: string) => `\u001b[${codes}m${block.repeat(cell)}\u001b[0m`
  if (upper !== undefined && lower !== undefined) return paint(`38;5;${colour(upper)};48;5;${colour(lower)}`, '▀')
  if (upper !== undefined) return paint(`38;5;${colour(upper)}`, '▀')
  return lower === undefined ? ' '.repeat(cell) : paint(`38;5;${colour(lower)}`, '▄')
}

function legend(halves: boolean): string {
  if (halves) return `  0 ${RAMP.map((code) => `\u001b[38;5;${code}m██\u001b[0m`).join('')} 1`
  const [a, b, c, d] = LIMITS.map((limit) => `${limit * 100}`)
  return `  ░ from ${a} %  ▒ ${b} %  ▓ ${c} %  █ ${d} %`
}
