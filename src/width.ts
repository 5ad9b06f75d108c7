// How wide a text is, in cells of a fixed width: a Chinese character or an emoji takes two, a combining accent none.
import fastStringWidth from 'fast-string-width'

/** Cells that a text takes on a terminal: a Chinese character or an emoji takes two, a combining accent none. */
export function width(text: string): number {
  return fastStringWidth(text)
}

/** Characters as people count them. */
export const graphemes = new Intl.Segmenter(undefined, { granularity: 'grapheme' })

/** Text cut to a number of cells, with an ellipsis where something is missing. */
export function cut(text: string, cells: number): string {
  if (width(text) <= cells) return text
  return `${beginning(text, cells - 1)}…`
}

/** The longest beginning, in whole graphemes, that fits. */
export function beginning(text: string, cells: number): string {
  let end = 0
  let used = 0
  for (const { segment } of graphemes.segment(text)) {
    used += width(segment)
    if (used > cells) break
    end += segment.length
  }
  return text.slice(0, end)
}
