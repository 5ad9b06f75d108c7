// Text on a terminal: cells, not code units; nothing in a token may act on the terminal or stay unseen.
import { expect, test } from 'vitest'
import { cut, fill, quoted, visible, width, wrap } from '../../src/cli/text.js'

test.each<[string, number]>([
  ['abc', 3],
  ['东京', 4], // East Asian wide: two cells each
  ['ｱ', 1], // half width
  ['é', 1],
  ['e\u0301', 1], // a combining accent takes none
  ['👍', 2],
  ['🇫🇷', 2],
  ['┃−…', 3],
])('%s takes %i cells', (text, cells) => expect(width(text)).toBe(cells))

test('cut: never more cells than asked for, whole characters, an ellipsis', () => {
  expect(cut('东京都', 6)).toBe('东京都')
  expect(cut('东京都', 5)).toBe('东京…')
  expect(cut('东京都', 4)).toBe('东…') // half a character would fit, and is not shown
  expect(cut('👍🏽👍🏽', 3)).toBe('👍🏽…')
  expect(cut('e\u0301e\u0301e\u0301', 2)).toBe('e\u0301…')
})

test('fill: to cells', () => {
  expect(fill('东', 4)).toBe('东  ')
  expect(fill('abc', 2)).toBe('abc')
})

test('wrap: at spaces, and inside what has none', () => {
  expect(wrap('one two three', 7)).toEqual(['one two', 'three'])
  expect(wrap('东京都东京都', 5)).toEqual(['东京', '都东', '京都'])
  expect(wrap('ab 东京都东京', 6)).toEqual(['ab', '东京都', '东京'])
  expect(wrap('东', 1)).toEqual(['东']) // nothing narrower can be shown
})

test.each<[string, string]>([
  ['\n', '"\\n"'],
  ['\t', '"\\t"'],
  ['\u001b[2J', '"\\u{1b}[2J"'], // would clear the screen
  ['\u009b31m', '"\\u{9b}31m"'], // the same in one byte
  ['\u202eabc', '"\\u{202e}abc"'], // would turn the line around
  ['\u00a0', '"\\u{a0}"'],
  ['\u200b', '"\\u{200b}"'],
  ['\u2028', '"\\u{2028}"'],
  [' a b', '" a b"'],
  ['"', '"\\""'],
  ['\\n', '"\\\\n"'], // two characters, not a line break
  ['\u0301', '"◌\u0301"'],
  ['😀', '"😀"'],
])('a token %j is shown as %s', (token, shown) => expect(quoted(token)).toBe(shown))

test('visible leaves text alone that can be seen', () => expect(visible('Größe 东京 👍 −1')).toBe('Größe 东京 👍 −1'))
