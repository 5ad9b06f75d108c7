// What components write: the tokens that each raises and lowers most.
import type { ComponentTokens, MovedToken, TopTokens } from '../top-tokens.js'
import { csvText } from './formats.js'
import { signed } from './table.js'
import type { Terminal } from './terminal.js'
import { fill, quoted, width, wrap } from './text.js'

/** Tokens each way; the table shows those that fit. */
export const TOKENS = 10

/** One component, as JSON has it. */
export function writtenJson({ component, raised, lowered }: ComponentTokens) {
  return { label: component.label, raised, lowered }
}

/** The table of row `i`, for the components of these labels; `masked`: without special and unused tokens. */
export function writtenTable(
  tokens: TopTokens,
  { i, labels, masked }: { readonly i: number; readonly labels: readonly string[]; readonly masked: boolean },
  screen: Terminal,
): string[] {
  const longest = Math.max('component'.length, ...labels.map((label) => label.length))
  const room = Math.max(12, Math.floor((Math.min(screen.columns, 140) - longest - 6) / 2))
  const left = masked ? '; special and unused tokens left out' : ''
  const title = `Tokens that each raises and lowers most, in logits against the mean of the vocabulary${left}:`
  const lines = labels.map((label) => {
    const { raised, lowered } = tokens.get(i, label)
    return `  ${label.padEnd(longest)}  ${screen.green(fill(list(raised, room), room))}  ${screen.red(list(lowered, room))}`.trimEnd()
  })
  return [
    '',
    ...wrap(title, screen.columns - 4).map((part) => `  ${part}`),
    '',
    screen.dim(`  ${'component'.padEnd(longest)}  ${'raises'.padEnd(room)}  lowers`),
    ...lines,
  ]
}

/** As many tokens as fit; at least one, cut. */
function list(tokens: readonly MovedToken[], room: number): string {
  const texts = tokens.map(({ text, value }) => {
    const number = signed(value, 2).trim()
    return `${quoted(text, Math.max(2, Math.min(16, room - number.length - 3)))} ${number}`
  })
  let line = texts[0] ?? ''
  for (const text of texts.slice(1)) {
    if (width(line) + 2 + width(text) > room) break
    line += `  ${text}`
  }
  return line
}

/** A line per row, component and token. */
export function writtenCsv(tokens: TopTokens): string {
  const lines = Array.from(tokens, (components, i) =>
    components.flatMap(({ component, raised, lowered }) =>
      Object.entries({ raised, lowered }).flatMap(([direction, moved]) =>
        moved.map(({ id, text, value }, rank) => {
          return [tokens.rows.prompt[i], tokens.rows.position[i], component.label, direction, rank, id, text, value]
        }),
      ),
    ),
  )
  return csvText(['prompt', 'position', 'component', 'direction', 'rank', 'id', 'token', 'value'], lines.flat())
}
