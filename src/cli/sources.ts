// Where heads moved their attribution from: a table of source tokens for each head that was asked for.
import type { AttributionSources, SourcesRow } from '../sources.js'
import { csvText } from './formats.js'
import { barScale, coloured, signed } from './table.js'
import type { Terminal } from './terminal.js'
import { cut, fill, quoted, width, wrap } from './text.js'

/** The attribution of a head and what came from each position of the prompt, in order. */
function ofHead(sources: AttributionSources, row: SourcesRow, i: number, h: number) {
  const head = row.heads[h] ?? ''
  return { head, attribution: sources.attribution.row(i).value(head), values: [...row.matrix.slice(h).data] }
}

/** The heads of row `i`, as JSON has them: `values[j]` is what came from token j of the prompt. */
export function sourcesJson(sources: AttributionSources, i: number) {
  const row = sources.row(i)
  return row.heads.map((_, h) => ofHead(sources, row, i, h))
}

/** Tables of row `i`: for each head the k positions that most was moved from, and the sum of all. */
export function sourcesTables(sources: AttributionSources, i: number, k: number, screen: Terminal): string[] {
  const row = sources.row(i)
  return row.heads.flatMap((_, h) => headTable(ofHead(sources, row, i, h), row.tokens, k, screen))
}

function headTable(
  { head, attribution, values }: ReturnType<typeof ofHead>,
  tokens: readonly string[],
  k: number,
  screen: Terminal,
): string[] {
  const ranked = values.map((value, position) => ({ value, position, token: quoted(tokens[position] ?? '', 20) }))
  // what lies behind the row's own position is masked: exactly 0
  const shown = [...ranked].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, k)
  const sum = values.reduce((total, value) => total + value, 0)
  const rest = sum - shown.reduce((total, { value }) => total + value, 0)
  const more = values.length - shown.length
  const longest = Math.max('position'.length, ...shown.map(({ token }) => width(token)))
  const bars = barScale(shown, screen.columns - longest - 24)
  const line = (position: string, token: string, value: number, note = '') => {
    return `  ${position.padStart(8)}  ${fill(token, longest)}  ${signed(value)}  ${note}`.trimEnd()
  }
  const title = wrap(`Where ${head} moved its ${signed(attribution).trim()} from:`, screen.columns - 4)
  return [
    '',
    ...title.map((part) => `  ${part}`),
    '',
    screen.dim(`  position  ${fill('token', longest)}  ${'logits'.padStart(8)}`),
    ...shown.map(({ position, token, value }) => line(String(position), token, value, coloured(value, bars(value), screen))),
    ...(more > 0 ? [screen.dim(line('', cut(`${more} more`, longest), rest))] : []),
    screen.dim(`  ${'─'.repeat(longest + 20)}`),
    screen.bold(line('sum', '', sum)),
  ]
}

/** A line per row, head and source position. */
export function sourcesCsv(sources: AttributionSources): string {
  const lines = Array.from(sources, ({ prompt, position, heads, tokens, matrix }) =>
    heads.flatMap((head, h) => tokens.map((token, source) => [prompt, position, head, source, token, matrix.at(h, source)])),
  )
  return csvText(['prompt', 'position', 'head', 'source', 'token', 'value'], lines.flat())
}
