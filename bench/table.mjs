// What every bench prints: one table, for the console or as Markdown, and what it was measured on.
import { cpus } from 'node:os'

export const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1]

/** Milliseconds of some seconds, with as many digits as they are worth. */
export const ms = (seconds) => (seconds < 0.1 ? (seconds * 1000).toFixed(1) : (seconds * 1000).toFixed(0))

/** Gigabytes. */
export const gb = (bytes) => (bytes / 1e9).toFixed(2)

/** The processor, its cores and the versions. */
export function machine() {
  const { model } = cpus()[0]
  return `${model.trim()}, ${cpus().length} cores, Node ${process.version}`
}

/** Rows with the same keys. */
export function print(rows, { markdown = false } = {}) {
  if (!markdown) return console.table(rows)
  const [keys, line] = [Object.keys(rows[0]), (cells) => `| ${cells.join(' | ')} |`]
  console.log([line(keys), line(keys.map(() => '---')), ...rows.map((row) => line(keys.map((key) => row[key])))].join('\n'))
}
