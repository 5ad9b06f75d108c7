// logit-prism attribute, as a user runs it: what is printed against what the API returns.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { AttributeOptions, Target } from '../../src/index.js'
import { cli, DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, temporary } from '../helpers.js'

const ASK = ['attribute', DEMO_PROMPT, '--answer', ' Mary', '--against', ' John']

interface Printed {
  readonly kind: string
  readonly model: string
  readonly unit: string
  readonly norm: string
  readonly certified: boolean
  readonly prompt: { ids: number[]; tokens: string[] }
  readonly rows: {
    position: number
    token: string
    target: object
    targetText: string
    components: { label: string; kind: string; value: number }[]
    constant: number
    total: number
    measured: number
    residual: number
    tolerance: number
  }[]
}

/** What a command prints as JSON; stdout must hold nothing else. */
async function printed(...args: string[]): Promise<Printed> {
  const { status, stdout, stderr } = await cli(...args, '--format', 'json', '--quiet')
  expect([status, stderr]).toEqual([0, ''])
  return JSON.parse(stdout) as Printed
}

/** That JSON holds what the API returns. */
async function expectAsApi(json: Printed, prompt: string | number[], target: Target, options: AttributeOptions, directory = DEMO) {
  const model = await open(directory)
  const result = await model.attribute([prompt], target, options)
  expect(json.kind).toBe('observed')
  expect(json.certified).toBe(result.certified)
  expect(json.prompt.ids).toEqual([...result.ids(0)])
  expect(json.rows.map(({ position }) => position)).toEqual([...result.rows.position])
  json.rows.forEach((printedRow, i) => {
    const row = result.row(i)
    expect(printedRow.components).toEqual(result.components.map((c, n) => ({ ...c, value: row.values[n] })))
    const { constant, total, measured, residual, tolerance } = row
    expect(printedRow).toMatchObject({ constant, total, measured, residual, tolerance, target: row.target })
  })
}

const number = (text: string) => Number(text.replace('−', '-'))

test('the table: its numbers are those of the API, largest first', async () => {
  const { status, stdout, stderr } = await cli(...ASK)
  expect(status).toBe(0)
  expect(stderr).toMatch(/demo model/)
  const row = (await (await open(DEMO)).attribute([DEMO_PROMPT], DEMO_TARGET)).row(0)
  const lines = [...stdout.matchAll(/^ {2}(\S.*?) +([+−]\d+\.\d{3}) +(\d+\.\d) %/gm)]
  const components = lines.filter(([, label]) => !label?.endsWith('more'))
  expect(components.map(([, label]) => label)).toEqual(row.byMagnitude(12).map(({ label }) => label))
  for (const [, label = '', value = '', share = ''] of components) {
    expect(number(value)).toBeCloseTo(row.value(label), 2.9)
    expect(Number(share)).toBeCloseTo((100 * Math.abs(row.value(label))) / row.values.reduce((sum, v) => sum + Math.abs(v), 0), 0.9)
  }
  const rest = lines.find(([, label]) => label === '14 more')
  const shown = row.byMagnitude(12).reduce((sum, { value }) => sum + value, 0)
  expect(number(rest?.[2] ?? '')).toBeCloseTo(row.total - row.constant - shown, 2.9)
  const sum = lines.reduce((total, [, , value = '']) => total + number(value), 0)
  const equation = (name: string) => number(new RegExp(`^  ${name} +([+−]\\d+\\.\\d{3})`, 'm').exec(stdout)?.[1] ?? '')
  expect(equation('constant')).toBeCloseTo(row.constant, 2.9)
  expect(equation('total')).toBeCloseTo(6.291, 2.9) // figures.json
  expect(equation('measured')).toBeCloseTo(6.291, 2.9)
  expect(sum + equation('constant')).toBeCloseTo(equation('total'), 1.8)
  expect(stdout).toContain('certified')
  expect(stdout).toContain('logit("Mary") − logit("John")')
})

test('--top says how many; the rest is summed', async () => {
  const three = await cli(...ASK, '--top', '3')
  expect(three.stdout).toContain('23 more')
  const all = await cli(...ASK, '--top', '26')
  expect(all.stdout).not.toMatch(/\d more/)
  expect(all.stdout).toMatch(/^ {2}L3 attn_bias /m)
})

test('--format json', async () => {
  await expectAsApi(await printed(...ASK), DEMO_PROMPT, DEMO_TARGET, {})
  const { stdout } = await cli(...ASK, '--format', 'json')
  expect(() => JSON.parse(stdout) as unknown, 'notes are not on stdout').not.toThrow()
})

test('--format csv: components and the constant add up to the total', async () => {
  const { status, stdout } = await cli(...ASK, '--format', 'csv', '--position', 'all')
  expect(status).toBe(0)
  const [head, ...lines] = stdout.trimEnd().split('\n')
  expect(head).toBe('prompt,position,component,kind,layer,index,value')
  const rows = lines.map((line) => line.split(','))
  expect(rows.every((row) => row.length === 7)).toBe(true)
  const result = await (await open(DEMO)).attribute([DEMO_PROMPT], DEMO_TARGET, { position: 'all' })
  expect(rows).toHaveLength(15 * (26 + 5))
  for (let position = 0; position < 15; position++) {
    const of = rows.filter((row) => row[1] === String(position))
    const one = (kind: string) => Number(of.find((row) => row[3] === kind)?.[6])
    const components = of.filter((row) => !['constant', 'total', 'measured', 'residual', 'tolerance'].includes(row[3] ?? ''))
    expect(components.map((row) => [row[2], row[3], row[4], row[5], Number(row[6])])).toEqual(
      result.components.map(({ label, kind, layer = '', index = '' }, c) => {
        return [label, kind, String(layer), String(index), result.row(position).values[c]]
      }),
    )
    const sum = components.reduce((total, row) => total + Number(row[6]), one('constant'))
    expect(Math.abs(sum - one('total'))).toBeLessThan(1e-4)
    expect(one('residual')).toBeCloseTo(one('total') - one('measured'), 4)
  }
})

test.each<[string, string[], Target, AttributeOptions]>([
  ['unit layer', ['--answer', ' Mary', '--unit', 'layer'], { answer: ' Mary' }, { unit: 'layer' }],
  ['several answers', ['--answer', ' Mary', '--answer', ' Anna'], { answer: [' Mary', ' Anna'] }, {}],
  ['against the mean', ['--answer', ' Mary', '--against', ':mean'], { answer: ' Mary', against: 'mean' }, {}],
  ['the predicted token', ['--answer', ':predicted'], { answer: 'predicted' }, {}],
  ['the next token', ['--answer', ':next', '--position', '3'], { answer: 'next' }, { position: 3 }],
  ['positions', ['--answer', ' Mary', '--position', '2,-1,5'], { answer: ' Mary' }, { position: [2, -1, 5] }],
  ['a negative position', ['--answer', ' Mary', '--position', '-3'], { answer: ' Mary' }, { position: -3 }],
  ['every position', ['--answer', ' Mary', '--position', 'all'], { answer: ' Mary' }, { position: 'all' }],
  ['no norm', ['--answer', ' Mary', '--norm', 'none'], { answer: ' Mary' }, { norm: 'none' }],
  ['no BOS token', ['--answer', ' Mary', '--no-bos'], { answer: ' Mary' }, { prependBos: false }],
  ['a BOS token', ['--answer', ' Mary', '--bos'], { answer: ' Mary' }, { prependBos: true }],
  ['one thread', ['--answer', ' Mary', '--threads', '1'], { answer: ' Mary' }, {}],
])('as the API: %s', async (_, args, target, options) => {
  const json = await printed('attribute', DEMO_PROMPT, ...args)
  expect(json.unit).toBe(options.unit ?? 'head')
  expect(json.norm).toBe(options.norm ?? 'frozen')
  await expectAsApi(json, DEMO_PROMPT, target, options)
})

test('--ids: prompt and tokens are ids, on a checkpoint without a tokenizer', async () => {
  const args = ['attribute', '20,75,100, 11', '--ids', '--answer', '6', '--against', '5', '--model', fixture('gpt2')]
  const json = await printed(...args)
  await expectAsApi(json, [20, 75, 100, 11], { answer: 6, against: 5 }, {}, fixture('gpt2'))
  expect(json.model).toBe(fixture('gpt2'))
  const { status, stdout, stderr } = await cli(...args)
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout).toContain('#6')
})

test('--norm none says that nothing is certified', async () => {
  const { status, stdout } = await cli(...ASK, '--norm', 'none')
  expect(status).toBe(0)
  expect(stdout).toContain('not certified')
})

test('--quiet: nothing on stderr; else words that are not known are named', async () => {
  const unknown = ['attribute', 'When Mary and xylophone went', '--answer', ' to']
  expect((await cli(...unknown)).stderr).toContain('"<unk>"')
  expect((await cli(...unknown, '--quiet')).stderr).toBe('')
  expect((await cli(...unknown, '--model', DEMO)).stderr).not.toContain('no --model given')
})

test('--out: the file is what would have been printed, nothing is printed, and nothing else is left', async () => {
  const directory = temporary()
  const out = join(directory, 'result.json')
  writeFileSync(out, 'an older, longer text '.repeat(1000))
  const { status, stdout } = await cli(...ASK, '--format', 'json', '--out', out)
  expect([status, stdout]).toEqual([0, ''])
  const direct = await cli(...ASK, '--format', 'json')
  expect(readFileSync(out, 'utf8')).toBe(direct.stdout)
  expect(readdirSync(directory)).toEqual(['result.json'])
})

test('--out that cannot be written is refused and leaves nothing', async () => {
  const directory = temporary()
  const { status, stdout, stderr } = await cli(...ASK, '--out', join(directory, 'nowhere', 'result.txt'))
  expect([status, stdout]).toEqual([1, ''])
  expect(stderr).toMatch(/^error IO_ERROR: /m)
  expect((await cli(...ASK, '--out', directory)).status, 'a directory').toBe(1)
  expect(readdirSync(directory)).toEqual([])
})

test('--out with a table is plain text', async () => {
  const out = join(temporary(), 'result.txt')
  expect((await cli(...ASK, '--out', out)).status).toBe(0)
  const text = readFileSync(out, 'utf8')
  expect(text).not.toContain('\u001b')
  expect(text).toMatch(/L3H1 +\+3\.518/)
})
