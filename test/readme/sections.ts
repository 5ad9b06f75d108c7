// What each section of the tour prints.
import { format } from 'node:util'
import { vi } from 'vitest'

/** Section → what it printed. */
export const printed = new Map<string, string>()
let current = ''

/** Names what is printed from here on. */
export function section(name: string): void {
  if (printed.has(name)) throw new Error(`two sections are named ${name}`)
  if (printed.size === 0) {
    vi.spyOn(console, 'log').mockImplementation((...values: unknown[]) => {
      printed.set(current, `${printed.get(current)}${format(...values)}\n`)
    })
  }
  current = name
  printed.set(name, '')
}
