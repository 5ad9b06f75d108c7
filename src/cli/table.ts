// The table of one row of attributions: labels, values, shares, bars around a common axis, and the certificate.
import type { AttributionRow } from '../attribution.js'
import type { Share } from '../components.js'
import type { Terminal } from './terminal.js'

/** The k largest components of a row: one line each in the table. What a result by neurons has cut away is not among them. */
export function largest(row: AttributionRow, k: number): Share[] {
  return row
    .byMagnitude(row.components.length)
    .filter(({ label }) => label !== 'rest')
    .slice(0, k)
}

/** Lines of the k largest components, what is left, and both sides of the completeness equation. */
export function attributionTable(row: AttributionRow, k: number, certified: boolean, screen: Terminal): string[] {
  const shown = largest(row, k)
  const rest = remainder(row, shown)
  // of neurons that were cut away only the sum is known, not their sizes: no shares
  const shares = !row.components.some(({ kind }) => kind === 'rest')
  const longest = Math.max(...shown.map(({ label }) => label.length), rest?.label.length ?? 0, 'component'.length)
  const bars = barScale(shown, screen.columns - longest - (shares ? 23 : 14))
  const line = ({ label, value, share }: Share, bar: string) => {
    return `  ${label.padEnd(longest)}  ${signed(value)}${shares ? `  ${percent(share)}` : ''}  ${bar}`.trimEnd()
  }
  const header = `  ${'component'.padEnd(longest)}  ${'logits'.padStart(8)}${shares ? `   ${'share'.padStart(5)}` : ''}`
  const lines = [screen.dim(header)]
  for (const share of shown) lines.push(line(share, coloured(share.value, bars(share.value), screen)))
  if (rest) lines.push(screen.dim(line(rest, '')))
  lines.push(...certificate(row, longest, certified, screen))
  return lines
}

/** What is not shown of a row, in one line. */
export function remainder(row: AttributionRow, shown: Share[]): Share | undefined {
  const n = row.values.length - shown.length
  if (n === 0) return undefined
  const all = row.values.reduce((sum, value) => sum + value, 0)
  const value = all - shown.reduce((sum, share) => sum + share.value, 0)
  const label = row.components.some(({ kind }) => kind === 'rest') ? 'all others' : `${n} more`
  return { label, value, share: Math.max(0, 1 - shown.reduce((sum, { share }) => sum + share, 0)) }
}

/** Both sides of the completeness equation. */
export function certificate(row: AttributionRow, longest: number, certified: boolean, screen: Terminal): string[] {
  const line = (label: string, value: number, note: string) => `  ${label.padEnd(longest)}  ${signed(value)}${note && `  ${note}`}`
  const note = certified
    ? screen.green(agreement(row.residual, row.tolerance, screen.columns - longest - 15))
    : screen.dim('not certified: norm left out')
  return [
    screen.dim(`  ${'─'.repeat(longest + 10)}`),
    line('constant', row.constant, screen.dim('what no component writes')),
    screen.bold(line('total', row.total, '')),
    line('measured', row.measured, note),
    ...(row.measuredAfterCap === undefined
      ? []
      : [line('after cap', row.measuredAfterCap, screen.dim('no sum: cap · tanh(logit / cap)'))]),
  ]
}

/** What a certificate says, in as many words as there is room for. */
export function agreement(residual: number, tolerance: number, room: number): string {
  const off = residual === 0 ? 'off by 0' : `off by ${Math.abs(residual).toExponential(0)}`
  const long = `${off}, ${tolerance.toExponential(0)} allowed: certified`
  return long.length <= room ? long : `${off}: certified`
}

/** Bars around an axis that stands where the most negative value needs it; none where there is no room. */
export function barScale(values: readonly { readonly value: number }[], width: number): (value: number) => string {
  if (width < 8) return () => ''
  const negative = Math.max(0, ...values.map(({ value }) => -value))
  const positive = Math.max(0, ...values.map(({ value }) => value))
  const room = Math.min(width, 61) - 2 // one for the axis, one because both sides are rounded
  const unit = negative + positive === 0 ? 0 : room / (negative + positive)
  const left = Math.round(negative * unit)
  return (value) => {
    const bar = '█'.repeat(Math.round(Math.abs(value) * unit))
    return value < 0 ? `${bar.padStart(left)}│` : `${' '.repeat(left)}│${bar}`
  }
}

/** A bar in the colour of its sign. */
export function coloured(value: number, bar: string, screen: Terminal): string {
  return value < 0 ? screen.red(bar) : screen.green(bar)
}

/** A logit with its sign, eight characters wide. */
export function signed(value: number, digits = 3): string {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(Math.abs(value) >= 1000 ? 1 : digits)}`.padStart(8)
}

/** A share as a percentage, seven characters wide. */
export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`.padStart(7)
}
