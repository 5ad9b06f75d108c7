// logit-prism dataset, as a user runs it: what is printed against what the API returns.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { facts, induction, ioi } from '../../src/index.js'
import { cli, DEMO, fixture, open, temporary } from '../helpers.js'

test('the table: items with twins, and how the model does both', async () => {
  const { status, stdout, stderr } = await cli('dataset', 'ioi', '--n', '30', '--seed', '4', '--top', '2', '--evaluate')
  expect(status).toBe(0)
  const model = await open(DEMO)
  const data = ioi(model, { n: 30, seed: 4 })
  const [clean, twins] = [await model.evaluate(data), await model.evaluate(data, { corrupted: true })]
  const text = stdout.replaceAll(/\s+/g, ' ')
  data.items.slice(0, 2).forEach(({ text: prompt, corruptedText, words, variant }, i) => {
    expect(text).toContain(`${i} ${variant} ${prompt} → "${words.IO}", not "${words.S1}" (`)
    expect(text).toContain(`twin ${corruptedText} (`)
  })
  expect(text).toContain('28 more')
  const percent = (value: number) => `${(value * 100).toFixed(1)} %`
  expect(text).toContain(`above the rival ${percent(clean.accuracy.mean)} [`)
  expect(text).toMatch(
    new RegExp(`above the rival .*\\] ${percent(twins.accuracy.mean)} \\[.* likeliest of all ${percent(clean.top1.mean)} `),
  )
  expect(text).toContain(`logit difference +${clean.logitDifference.mean.toFixed(3)} [`)
  expect(text).toMatch(/left out \d+ templates, \d+ names, 1 place, \d+ objects/)
  expect(stderr).toMatch(/^no --model given.*\n$/)
})

test('--format json: the data set and both evaluations as the API has them', async () => {
  const args = ['--n', '4', '--order', 'BABA', '--corruption', 'S2-IO', '--no-bos', '--evaluate', '--format', 'json', '--quiet']
  const { status, stdout, stderr } = await cli('dataset', 'ioi', ...args)
  expect([status, stderr]).toEqual([0, ''])
  const model = await open(DEMO)
  const data = ioi(model, { n: 4, order: 'BABA', corruption: 'S2-IO', prependBos: false })
  const evaluation = { clean: await model.evaluate(data), corrupted: await model.evaluate(data, { corrupted: true }) }
  expect(JSON.parse(stdout)).toEqual(JSON.parse(JSON.stringify({ model: 'demo', ...data.toJSON(), evaluation })))
})

test('--format jsonl: an item a line; what was left out is said beside it', async () => {
  const { stdout, stderr } = await cli('dataset', 'facts', '--n', '5', '--seed', '2', '--format', 'jsonl', '--model', DEMO)
  const data = facts(await open(DEMO), undefined, { n: 5, seed: 2 })
  expect(stdout).toBe(data.toJSONL())
  expect(stderr).toBe(
    `${data.leftOut.length} were left out for this tokenizer (--format json lists them): ${data.leftOut.length} facts\n`,
  )
})

test('--format csv, into a file: ids, positions by name, and what was measured', async () => {
  const out = join(temporary(), 'data.csv')
  const { status, stdout } = await cli(
    'dataset',
    'induction',
    '--n',
    '3',
    '--length',
    '6',
    '--format',
    'csv',
    '--evaluate',
    '--out',
    out,
  )
  expect([status, stdout]).toEqual([0, ''])
  const model = await open(DEMO)
  const data = induction(model, { n: 3, length: 6 })
  const { items } = await model.evaluate(data)
  const [header, ...lines] = readFileSync(out, 'utf8').trimEnd().split('\n').map((line) => line.split(',')) // prettier-ignore
  expect(header?.join(',')).toBe(
    'item,variant,text,corrupted_text,prompt,corrupted,answer,against,A,B,END,difference,correct,top1,probability,twin_difference,twin_probability',
  )
  lines.forEach((line, i) => {
    const cell = (name: string) => line[header?.indexOf(name) ?? -1]
    expect(cell('prompt')).toBe(data.prompts[i]?.join(' '))
    expect([cell('answer'), cell('against')]).toEqual([String(data.targets[i]?.answer), String(data.targets[i]?.against)])
    expect([cell('A'), cell('B'), cell('END')]).toEqual(['5', '6', '11'])
    expect(Number(cell('difference'))).toBeCloseTo(items[i]?.difference ?? Number.NaN, 5)
    expect(cell('correct')).toBe(String(Number(items[i]?.correct)))
  })
  expect(lines).toHaveLength(3)
})

test('without a tokenizer: ids', async () => {
  const { status, stdout } = await cli(
    'dataset',
    'induction',
    '--n',
    '1',
    '--length',
    '3',
    '--model',
    fixture('gpt2'),
    '--evaluate',
  )
  expect(status).toBe(0)
  expect(stdout).toMatch(/→ "#\d+", not "#\d+"/)
})

test.each<[string, string, string[]]>([
  ['years that the tokenizer does not split', 'NOT_ONE_TOKEN', ['greater-than']],
  ['names of a model without a tokenizer', 'TOKENIZER_MISSING', ['ioi', '--model', fixture('gpt2')]],
  ['more facts than there are', 'INVALID_ARGUMENT', ['facts', '--n', '5000']],
  ['a sequence longer than the context', 'INVALID_ARGUMENT', ['induction', '--length', '40']],
  ['a seed of more than 32 bits', 'INVALID_ARGUMENT', ['ioi', '--seed', '4294967296']],
])('status 1 and a code: %s', async (_, code, args) => {
  const { status, stdout, stderr } = await cli('dataset', ...args, '--quiet')
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toMatch(new RegExp(`^error ${code}: \\S.*\\n$`))
})

test.each<[string, string[], RegExp]>([
  ['no data set', [], /missing required argument 'name'/],
  ['one that is none', ['ioii'], /ioi, induction, facts, greater-than/],
  ['--length of ioi', ['ioi', '--length', '5'], /--length is for induction/],
  ['--order of facts', ['facts', '--order', 'ABBA'], /are for ioi/],
  ['twins that are none', ['ioi', '--corruption', 'abc'], /ABC, IO-random/],
  ['--top of a file', ['ioi', '--top', '3', '--format', 'csv'], /--top is for the table/],
  ['a seed that is none', ['ioi', '--seed', '-1'], /whole number/],
  ['a format that it has not', ['ioi', '--format', 'arrow'], /table, json, jsonl, csv/],
])('status 2: %s', async (_, args, message) => {
  const { status, stdout, stderr } = await cli('dataset', ...args)
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
  expect(stderr).toMatch(message)
})
