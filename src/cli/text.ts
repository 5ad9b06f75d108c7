// Text as a terminal shows it: how many cells it takes, cut, filled and broken by cells, nothing in it that could act.
import { beginning, cut, graphemes, width } from '../width.js'

export { cut, width } from '../width.js'

/** Text filled with spaces on the right to a number of cells. */
export function fill(text: string, cells: number): string {
  return text + ' '.repeat(Math.max(0, cells - width(text)))
}

/** Text broken into lines of at most a number of cells: at spaces, and inside what alone is longer than a line. */
export function wrap(text: string, cells: number): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? ''
    if (line === '') lines[lines.length - 1] = word
    else if (width(line) + 1 + width(word) <= cells) lines[lines.length - 1] = `${line} ${word}`
    else lines.push(word)
    let last = lines.at(-1) ?? ''
    while (width(last) > cells) {
      const head = beginning(last, cells) || last.slice(0, [...graphemes.segment(last)][0]?.segment.length)
      if (head.length === last.length) break // one character that is wider than the line
      last = last.slice(head.length)
      lines.splice(-1, 1, head, last)
    }
  }
  return lines
}

const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu
const NAMED: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/**
 * Text with every character that a terminal would obey, or nobody would see, written out: line breaks, escape sequences,
 * marks that turn the direction of writing, spaces of other kinds.
 */
export function visible(text: string): string {
  return text.replace(INVISIBLE, (character) => NAMED[character] ?? `\\u{${character.codePointAt(0)?.toString(16)}}`)
}

/** A token as it is shown: quoted, so that its spaces are seen; a lone accent gets a circle to stand on. */
export function quoted(token: string, cells = 24): string {
  const text = visible(token.replaceAll('\\', '\\\\').replaceAll('"', '\\"'))
  return `"${cut(/^\p{M}/u.test(text) ? `◌${text}` : text, cells)}"`
}
