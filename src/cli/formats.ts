// Output for other programs: comma-separated values, and files of Apache Arrow.
import type { Table } from 'apache-arrow'
import { usage } from './ask.js'

/** A value of a table; nothing where a line has none. */
export type Cell = string | number | undefined

/** Lines of comma-separated values; texts with commas, quotes or line breaks are quoted as RFC 4180 says. */
export function csvText(header: readonly string[], lines: Iterable<readonly Cell[]>): string {
  const cell = (value: Cell) => {
    const text = String(value ?? '')
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
  }
  return Array.from([header, ...lines], (line) => `${line.map(cell).join(',')}\n`).join('')
}

/** An Arrow table as an IPC file. */
export async function arrowFile(table: Table): Promise<Uint8Array> {
  const { tableToIPC } = await import('apache-arrow')
  return tableToIPC(table, 'file')
}

/** Binary output is not for a terminal. */
export function refuseTerminal({ format, out }: { readonly format: string; readonly out?: string }): void {
  if (format === 'arrow' && out === undefined && process.stdout.isTTY) {
    throw usage('--format arrow is binary and not for a terminal: add --out FILE, or pipe it.')
  }
}
