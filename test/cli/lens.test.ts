// logit-prism lens, as a user runs it: what is printed against what the API returns.
import { tableFromIPC } from 'apache-arrow'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { LensOptions } from '../../src/index.js'
import { cli, DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, temporary } from '../helpers.js'

const ASK = ['lens', DEMO_PROMPT, '--answer', ' Mary', '--against', ' John']
const number = (text: string | undefined) => Number((text ?? '').replace('−', '-'))

async function lensOf(options: LensOptions, prompt: string | number[] = DEMO_PROMPT, directory = DEMO) {
  return (await open(directory)).logitLens([prompt], options)
}

test('the table: a line per state with value, rank and probability of the answer, and the likeliest tokens', async () => {
  const { status, stdout } = await cli(...ASK)
  expect(status).toBe(0)
  const states = (await lensOf({ targets: DEMO_TARGET, top: 5 })).row(0)
  const lines = [...stdout.matchAll(/^ {2}(embed|L\d attn|L\d mlp) +([+−]\S+) +(\d+) +(\S+)( %)? +"(\S+)" /gm)]
  const labels = ['embed', ...[0, 1, 2, 3].flatMap((layer) => [`L${layer} attn`, `L${layer} mlp`])]
  expect(lines.map(([, label]) => label)).toEqual(labels)
  lines.forEach(([, , value, rank, probability, percent, first], i) => {
    const mary = states[i]?.tokens?.find(({ text }) => text === 'Mary')
    expect(number(value)).toBeCloseTo(states[i]?.value ?? Number.NaN, 2.9)
    expect(Number(rank)).toBe(mary?.rank)
    const p = percent ? Number(probability) / 100 : Number(probability)
    expect(Math.abs(p - (mary?.probability ?? Number.NaN))).toBeLessThanOrEqual(percent ? 5.01e-4 : 0.51 * p)
    expect(first).toBe(states[i]?.top?.[0]?.text)
  })
  expect(number(/measured +([+−]\S+)/.exec(stdout)?.[1])).toBeCloseTo(6.291, 2.9) // models/demo/figures.json
  expect(stdout).toContain('certified')
})

test('without an answer: the likeliest tokens alone', async () => {
  const { status, stdout } = await cli('lens', DEMO_PROMPT, '--top', '1', '--position', '3')
  expect(status).toBe(0)
  const states = (await lensOf({ top: 1, position: 3 })).row(0)
  const firsts = [...stdout.matchAll(/^ {2}(?:embed|L\d \w+) +"(\S+)" +\S+ %$/gm)].map(([, text]) => text)
  expect(firsts).toEqual(states.map(({ top }) => top?.[0]?.text))
  expect(stdout).not.toContain('rank')
})

test('several answers: the best rank, the sum of the probabilities, and both are said', async () => {
  const { stdout } = await cli('lens', DEMO_PROMPT, '--answer', ' Mary', '--answer', ' Peter')
  const last = (await lensOf({ targets: { answer: [' Mary', ' Peter'] } })).row(0).at(-1)
  const both = last?.tokens?.reduce((sum, { probability }) => sum + probability, 0) ?? Number.NaN
  const [, rank, probability] = /^ {2}L3 mlp +\S+ +(\d+) +(\S+) %/m.exec(stdout) ?? []
  expect(rank).toBe('0')
  expect(number(probability)).toBeCloseTo(100 * both, 0.9)
  expect(stdout.replaceAll(/\s+/g, ' ')).toContain('Rank: of the best of the answers; prob.: of all of them.')
})

test('attention and MLP in parallel: a line per layer', async () => {
  const { stdout, status } = await cli('lens', '1,2,3', '--ids', '--answer', '4', '--model', fixture('parity/gptj'), '--quiet')
  expect(status).toBe(0)
  expect([...stdout.matchAll(/^ {2}(embed|L\S+) /gm)].map(([, label]) => label)).toEqual(['embed', 'L0', 'L1', 'L2'])
})

test('a model that caps its logits: what is before the cap and what after it is said', async () => {
  const { stdout } = await cli('lens', '1,2,3', '--ids', '--answer', '4', '--model', fixture('parity/gemma2'), '--quiet')
  expect(stdout.replaceAll(/\s+/g, ' ')).toContain('Logits are before the cap, probabilities after it.')
})

test.each<[string, string[], LensOptions]>([
  ['a pair', ASK.slice(2), { targets: DEMO_TARGET, top: 5 }],
  ['norm frozen', [...ASK.slice(2), '--norm', 'frozen'], { targets: DEMO_TARGET, top: 5, norm: 'frozen' }],
  ['positions', ['--answer', ':next', '--position', '2,5'], { targets: { answer: 'next' }, top: 5, position: [2, 5] }],
  ['predicted, two tokens', ['--answer', ':predicted', '--top', '2'], { targets: { answer: 'predicted' }, top: 2 }],
  ['more tokens than there are', ['--top', '1000'], { top: 342 }],
  ['no BOS', ['--no-bos'], { top: 5, prependBos: false }],
])('--format json as the API: %s', async (_, args, options) => {
  const { status, stdout, stderr } = await cli('lens', DEMO_PROMPT, ...args, '--format', 'json', '--quiet')
  expect([status, stderr]).toEqual([0, ''])
  const printed = JSON.parse(stdout) as { norm: string; prompt: { ids: number[] }; rows: { position: number; states: object[] }[] }
  const lens = await lensOf(options)
  expect(printed.norm).toBe(options.norm ?? 'recomputed')
  expect(printed.prompt.ids).toEqual([...lens.ids(0)])
  expect(printed.rows.map(({ position }) => position)).toEqual([...lens.rows.position])
  expect(printed.rows.map(({ states }) => states)).toEqual([...lens])
  expect(printed.rows.map((row) => ('measured' in row ? row.measured : undefined))).toEqual(
    [...lens.rows.position].map((__, i) => lens.measured[i]),
  )
})

test('--format csv: every value, token and likely token of every state', async () => {
  const { stdout } = await cli(...ASK, '--format', 'csv', '--top', '2')
  const [header, ...lines] = stdout.trimEnd().split('\n')
  expect(header).toBe('prompt,position,state,kind,id,token,logit,rank,probability')
  expect(lines).toHaveLength(9 * (1 + 2 + 2))
  const states = (await lensOf({ targets: DEMO_TARGET, top: 2 })).row(0)
  const values = lines.map((line) => line.split(',')).filter(([, , , kind]) => kind === 'target')
  expect(values.map(([, , at, , , , value]) => [at, Number(value)])).toEqual(states.map(({ at, value }) => [at, value]))
})

test('--format arrow: the values of the API', async () => {
  const out = join(temporary(), 'lens.arrow')
  expect((await cli(...ASK, '--format', 'arrow', '--out', out)).status).toBe(0)
  const table = tableFromIPC(readFileSync(out))
  const lens = await lensOf({ targets: DEMO_TARGET, top: 5 })
  expect(table.getChild('value')?.toArray()).toEqual(lens.values)
  expect([...(table.getChild('state') ?? [])]).toEqual([...lens.states])
})

test.each<[string, string[], RegExp]>([
  ['a comparison without an answer', ['--against', ' John'], /--against needs an --answer/],
  ['arrow without an answer', ['--format', 'arrow'], /--format arrow holds the values of an --answer/],
  ['a norm that is none', ['--norm', 'none'], /recomputed, frozen/],
  ['all tokens', ['--top', 'all'], /whole number/],
])('status 2: %s', async (_, args, message) => {
  const { status, stdout, stderr } = await cli('lens', DEMO_PROMPT, ...args)
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toMatch(message)
})
