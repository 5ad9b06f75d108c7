// logit-prism attention, as a user runs it: what is printed against what the API returns. Pictures of other commands too.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { HeadPattern } from '../../src/index.js'
import { cli, DEMO, DEMO_PROMPT, open, temporary } from '../helpers.js'

const ASK = ['attention', DEMO_PROMPT]
const number = (text: string | undefined) => Number((text ?? '').replace('−', '-'))

async function attentionOf(heads?: string[]) {
  const model = await open(DEMO)
  const attention = await model.attention([DEMO_PROMPT], heads === undefined ? {} : { heads })
  return { attention, heads: await attention.classify() }
}

test('without --head: a line per head with its name, strength and margin', async () => {
  const { status, stdout } = await cli(...ASK)
  expect(status).toBe(0)
  const lines = [...stdout.matchAll(/^ {2}(L\dH\d) +(\w+) +(\S+) +(\S+)/gm)]
  const { heads } = await attentionOf()
  expect(lines.map(([, label, type]) => [label, type])).toEqual(heads.map(({ label, type }) => [label, type]))
  lines.forEach(([, label, , strength, margin], i) => {
    const { type, scores, margin: expected } = heads[i] as HeadPattern
    expect(number(margin), label).toBeCloseTo(expected, 2.9)
    if (type !== 'mixed') expect(number(strength), label).toBeCloseTo(scores[type].strength, 2.9)
  })
  expect(stdout).toMatch(/^ {2}L0H2 +previousToken /m)
})

test('--head: its scores, and a shade for every query and key', async () => {
  const { status, stdout } = await cli(...ASK, '--head', 'L3H1', '--head', 'L0H2')
  expect(status).toBe(0)
  const parts = stdout.split(/^ {2}(?=L\dH\d {2})/m).slice(1)
  const { attention, heads } = await attentionOf(['L0H2', 'L3H1'])
  expect(parts).toHaveLength(2)
  parts.forEach((part, i) => {
    const { label, type, layer, head, scores } = heads[i] as HeadPattern
    expect(part.startsWith(`${label}  ${type}`), part.slice(0, 40)).toBe(true)
    for (const [name, { score, queries }] of Object.entries(scores)) {
      const [, shown, , , n] = new RegExp(`^  ${name} +(\\S+) +(\\S+) +(\\S+) +(\\d+)`, 'm').exec(part) ?? []
      expect(number(shown), `${label} ${name}`).toBeCloseTo(score, 2.9)
      expect(Number(n)).toBe(queries)
    }
    const rows = [...part.matchAll(/^ {2} ?(\d+) "([^"]*)" *? (?=[ ░▒▓█]*$)([ ░▒▓█]*)$/gm)]
    expect(rows.map(([, , token]) => token)).toEqual(attention.tokens(0))
    const header = part.split('\n').find((line) => /^ +0 1 2 3/.test(line)) ?? ''
    const start = header.indexOf('0')
    const pattern = attention.pattern(layer, head, 0)
    rows.forEach(([line], q) => {
      for (let k = 0; k <= q; k++) {
        const share = pattern.at(q, k)
        const shade = share < 0.05 ? ' ' : share < 0.25 ? '░' : share < 0.5 ? '▒' : share < 0.75 ? '▓' : '█'
        expect((line[start + 2 * k] ?? ' ') + (line[start + 2 * k + 1] ?? ' '), `${label} ${q} ${k}`).toBe(shade + shade)
      }
    })
  })
})

test('a long prompt: its last tokens, and all that lies before as one column', async () => {
  const ids = Array.from({ length: 64 }, (_, i) => 2 + ((i * 37) % 300))
  const { stdout } = await cli('attention', ids.join(','), '--ids', '--head', 'L0H2', '--quiet')
  const [, kept, all] = /The last (\d+) of (\d+) tokens/.exec(stdout.replaceAll(/\s+/g, ' ')) ?? []
  expect(Number(all)).toBe(64)
  const rows = stdout.match(/^ {2} ?\d+ ".*$/gm) ?? []
  expect(rows).toHaveLength(Number(kept))
  expect(rows[0]).toMatch(new RegExp(`^ {2} ?${64 - Number(kept)} "`))
  expect(rows.at(-1)).toMatch(/^ {2}63 "/)
})

test('--format json as the API, with the patterns that were asked for', async () => {
  const { stdout, stderr } = await cli(...ASK, '--format', 'json', '--head', 'L3H1', '--quiet')
  expect(stderr).toBe('')
  const { attention, heads } = await attentionOf(['L3H1'])
  const printed = JSON.parse(stdout)
  expect(printed.prompt).toEqual({ ids: [...attention.ids(0)], tokens: attention.tokens(0) })
  const pattern = attention.pattern(3, 1, 0)
  expect(printed.heads[0].pattern.flat()).toEqual([...pattern.data])
  expect(printed.heads).toEqual(heads.map((head) => expect.objectContaining(head)))
  const all = JSON.parse((await cli(...ASK, '--format', 'json', '--quiet')).stdout)
  expect(all.heads).toHaveLength(16)
  expect(all.heads[0].pattern).toBeUndefined()
})

test('--format csv: the scores of all heads, or a pattern', async () => {
  const scores = (await cli(...ASK, '--format', 'csv')).stdout.trimEnd().split('\n')
  expect(scores[0]).toBe('head,type,margin,name,score,null,strength,queries')
  expect(scores).toHaveLength(1 + 16 * 7)
  const { attention, heads } = await attentionOf()
  const line = scores.map((each) => each.split(',')).find(([head, , , name]) => head === 'L0H2' && name === 'previousToken')
  const found = heads.find(({ label }) => label === 'L0H2')?.scores.previousToken
  expect(line?.slice(4).map(Number)).toEqual([found?.score, found?.null, found?.strength, found?.queries])
  const pattern = (await cli(...ASK, '--format', 'csv', '--head', 'L3H1')).stdout.trimEnd().split('\n')
  expect(pattern[0]).toBe('head,query,query_token,key,key_token,attention')
  expect(pattern).toHaveLength(1 + (15 * 16) / 2)
  expect(pattern.find((each) => each.startsWith('L3H1,14,to,2,Mary,'))).toBe(
    `L3H1,14,to,2,Mary,${attention.pattern(3, 1, 0).at(14, 2)}`,
  )
})

test.each<[string, string[], RegExp]>([
  ['svg of all heads', ['--format', 'svg'], /--format svg is a picture of one head/],
  ['svg of two', ['--format', 'svg', '--head', 'L0H0', '--head', 'L0H1'], /--format svg is a picture of one head/],
  ['a format that it has not', ['--format', 'arrow'], /table, json, csv, svg/],
  ['an option that it has not', ['--answer', ' Mary'], /unknown option/],
])('status 2: %s', async (_, args, message) => {
  const { status, stdout, stderr } = await cli(...ASK, ...args)
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toMatch(message)
})

test('status 1: a head that the model has not', async () => {
  const { status, stderr } = await cli(...ASK, '--head', 'L9H1')
  expect(status).toBe(1)
  expect(stderr).toMatch(/INVALID_ARGUMENT.*L9H1/)
})

describe('--format svg', () => {
  const PAIR = [DEMO_PROMPT, '--answer', ' Mary', '--against', ' John']

  test.each<[string, string[], RegExp[]]>([
    ['attention', [...ASK, '--head', 'L3H1'], [/Attention of L3H1/, />2 Mary</]],
    ['attribute: heads by layer', ['attribute', ...PAIR], [/by head/, /total 6\.291/, />L3</, />attn_bias</]],
    ['attribute: layers', ['attribute', ...PAIR, '--unit', 'layer'], [/by layer/, />attn</]],
    ['attribute: neurons', ['attribute', ...PAIR, '--unit', 'neuron', '--top', '8'], [/by neuron/, />L3N29</]],
    ['attribute: the mean of rows', ['attribute', ...PAIR, '--position', '3,7'], [/mean over 2 rows/]],
    ['attribute: sources', ['attribute', ...PAIR, '--sources', 'L3H1,L2H0'], [/What heads moved/, />2 Mary</, />L2H0</]],
    ['lens: the target', ['lens', ...PAIR], [/Logit lens/, />L3 attn</]],
    ['lens: tokens', ['lens', DEMO_PROMPT, '--position', '-2,-1'], [/Logit lens/, />embed</, />Mary</]],
  ])('%s', async (_, args, shown) => {
    const out = join(temporary(), 'picture.svg')
    const { status, stderr } = await cli(...args, '--format', 'svg', '--out', out, '--quiet')
    expect([status, stderr]).toEqual([0, ''])
    const svg = readFileSync(out, 'utf8')
    expect(svg).toMatch(/^<svg [^]*<\/svg>\s*$/)
    for (const pattern of shown) expect(svg).toMatch(pattern)
  })

  test.each<[string, string[], RegExp]>([
    ['tokens', ['--tokens'], /no picture of --tokens/],
    ['sources of several rows', ['--sources', 'L3H1', '--position', 'all'], /a picture of one row/],
  ])('status 2: %s', async (_, args, message) => {
    const { status, stdout, stderr } = await cli('attribute', ...PAIR, ...args, '--format', 'svg')
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toMatch(message)
  })
})
