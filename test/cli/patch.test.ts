// logit-prism patch, as a user runs it: what is printed against what the API returns.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { cli, DEMO, DEMO_PROMPT, open, temporary } from '../helpers.js'

const TWIN = DEMO_PROMPT.replace('John gave', 'Mary gave')
const TARGET = { answer: ' Mary', against: ' John' }
const ASK = [DEMO_PROMPT, '--corrupt', TWIN, '--answer', ' Mary', '--against', ' John']

test('the table: both prompts with their target, and a line per position', async () => {
  const { status, stdout, stderr } = await cli('patch', ...ASK)
  expect(status).toBe(0)
  expect(stderr).toMatch(/^no --model given.*\n$/)
  const swept = await (await open(DEMO)).patch([DEMO_PROMPT], [TWIN], TARGET)
  const { normalised = [] } = swept.matrix(0)
  const lines = stdout.split('\n')
  swept.tokens(0).forEach((token, position) => {
    const line = lines.find((text) => text.startsWith(`  ${String(position).padStart(3)} "`)) ?? ''
    expect(line).toContain(`"${token}"`)
    const shares = normalised.map((row) => String(Math.round((row[position] ?? Number.NaN) * 100) || 0).replace('-', '−'))
    expect(line.split('"').at(-1)?.trim().split(/\s+/)).toEqual(shares)
  })
  expect(stdout).toContain('logit("Mary") − logit("John")')
  expect(stdout).toContain('clean resid_pre into the corrupted run')
})

test('--noising: percent of the way from the clean run, which is the one that is patched', async () => {
  const { stdout } = await cli('patch', ...ASK, '--over', 'head', '--noising', '--quiet')
  const swept = await (await open(DEMO)).patch([DEMO_PROMPT], [TWIN], TARGET, { over: ['head'], direction: 'noising' })
  const { rows, normalised = [] } = swept.matrix(0)
  rows.forEach((label, i) => {
    const line = stdout.split('\n').find((text) => text.startsWith(`  ${label} `)) ?? ''
    const shares = normalised[i]?.map((value) => String(Math.round((1 - value) * 100) || 0).replace('-', '−'))
    expect(line.trim().split(/\s+/).slice(1)).toEqual(shares)
  })
  expect(stdout).toContain('from the clean run (0) to the corrupted one (100)')
})

test('--format json and csv: what the API has', async () => {
  const json = await cli('patch', ...ASK, '--over', 'head', '--noising', '--format', 'json', '--quiet')
  expect([json.status, json.stderr]).toEqual([0, ''])
  const swept = await (await open(DEMO)).patch([DEMO_PROMPT], [TWIN], TARGET, { over: ['head'], direction: 'noising' })
  expect(JSON.parse(json.stdout)).toEqual(JSON.parse(JSON.stringify({ model: 'demo', ...swept.toJSON() })))
  const csv = await cli('patch', ...ASK, '--over', 'head', '--noising', '--format', 'csv', '--quiet')
  const lines = csv.stdout.trim().split('\n')
  expect(lines[0]).toBe('row,column,value,normalised')
  expect(lines[2]).toBe(`L0,H1,${swept.values[1]},${swept.normalised[1]}`)
  expect(lines).toHaveLength(1 + swept.values.length)
})

test('--format svg and html into files', async () => {
  const [svg, html] = ['patch.svg', 'patch.html'].map((name) => join(temporary(), name)) as [string, string]
  await cli('patch', ...ASK, '--format', 'svg', '--out', svg, '--quiet')
  await cli('patch', ...ASK, '--format', 'html', '--out', html, '--quiet')
  expect(readFileSync(svg, 'utf8')).toMatch(/^<svg[^]*Clean resid_pre patched in/)
  expect(readFileSync(html, 'utf8')).toMatch(/^<!doctype html>[^]*drink to[^]*<svg/)
})

test('the same prompt twice: no share of a difference, and it says so', async () => {
  const { stdout } = await cli('patch', DEMO_PROMPT, '--corrupt', DEMO_PROMPT, '--answer', ' Mary', '--quiet')
  expect(stdout).toContain('Both runs give the same target')
})

test('wrong usage is refused before a model is loaded: exit 2; what does not fit: exit 1', async () => {
  const nowhere = ['--model', '/nowhere']
  for (const args of [
    [DEMO_PROMPT, '--answer', ' Mary'],
    [DEMO_PROMPT, '--corrupt', TWIN],
    [...ASK, '--over', 'head', '--at', 'resid_pre'],
    [...ASK, '--over', 'neuron'],
    [...ASK, '--position', 'all'],
    [...ASK, '--positions', 'some'],
  ]) {
    const { status, stdout } = await cli('patch', ...args, ...nowhere)
    expect([status, stdout], args.join(' ')).toEqual([2, ''])
  }
  const uneven = await cli('patch', DEMO_PROMPT, '--corrupt', 'When Mary and John', '--answer', ' Mary', '--quiet')
  expect([uneven.status, uneven.stdout]).toEqual([1, ''])
  expect(uneven.stderr).toContain('INVALID_ARGUMENT')
})
