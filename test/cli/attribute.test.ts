// logit-prism attribute, as a user runs it: what is printed against what the API returns.
import { tableFromIPC } from 'apache-arrow'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { AttributeOptions, Target } from '../../src/index.js'
import { cli, DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, ROOT, run, temporary } from '../helpers.js'

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
    expect(printedRow.components).toEqual(result.components.map((c, n) => ({ ...c, value: (row.values[n] ?? Number.NaN) + 0 }))) // JSON has no −0
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
  [
    'the ten strongest neurons',
    ['--answer', ' Mary', '--unit', 'neuron', '--top', '10'],
    { answer: ' Mary' },
    { unit: 'neuron', top: 10 },
  ],
  ['all neurons', ['--answer', ' Mary', '--unit', 'neuron', '--top', 'all'], { answer: ' Mary' }, { unit: 'neuron' }],
  [
    'as TransformerLens',
    ['--answer', ' Mary', '--convention', 'transformerlens'],
    { answer: ' Mary' },
    { convention: 'transformerlens' },
  ],
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

test('neurons: the strongest components of all, then the sum of the others', async () => {
  const { status, stdout } = await cli(...ASK, '--unit', 'neuron', '--top', '8')
  expect(status).toBe(0)
  const row = (await (await open(DEMO)).attribute([DEMO_PROMPT], DEMO_TARGET, { unit: 'neuron' })).row(0)
  const strongest = row.byMagnitude(8)
  const lines = [...stdout.matchAll(/^ {2}(\S.*?) +([+−]\d+\.\d{3})/gm)]
  expect(lines.slice(0, 8).map(([, label]) => label)).toEqual(strongest.map(({ label }) => label))
  lines.slice(0, 8).forEach(([, , value = ''], i) => expect(number(value)).toBeCloseTo(strongest[i]?.value ?? Number.NaN, 2.9))
  const [, label, others = ''] = lines[8] ?? []
  expect(label).toBe('all others')
  expect(number(others)).toBeCloseTo(row.total - row.constant - strongest.reduce((sum, { value }) => sum + value, 0), 2.9)
  expect(stdout, 'sizes of what was cut away are not known').not.toContain('share')
})

test('--sources: what each head moved from each token, and the sum', async () => {
  const model = await open(DEMO)
  const sources = await model.attributeSources([DEMO_PROMPT], DEMO_TARGET, { heads: ['L2H0', 'L3H1'] })
  const { status, stdout } = await cli(...ASK, '--sources', 'L2H0,L3H1', '--top', '3')
  expect(status).toBe(0)
  const tables = stdout.split(/^ {2}Where (?=L\dH\d moved)/m).slice(1)
  expect(tables).toHaveLength(2)
  tables.forEach((text, h) => {
    const values = sources.row(0).matrix.slice(h).data
    const attribution = sources.attribution.row(0).value(sources.heads[h] ?? '')
    expect(text.startsWith(`${sources.heads[h]} moved its `)).toBe(true)
    const shown = [...text.matchAll(/^ +(\d+) {2}"(\S+)" +([+−]\S+)/gm)]
    expect(shown).toHaveLength(3)
    for (const [, position, token, value = ''] of shown) {
      expect(token).toBe(sources.tokens(0)[Number(position)])
      expect(number(value)).toBeCloseTo(values[Number(position)] ?? Number.NaN, 2.9)
    }
    expect(text).toMatch(/12 more/)
    expect(number(/sum +([+−]\S+)/.exec(text)?.[1] ?? '')).toBeCloseTo(attribution, 2.9)
  })
  expect(stdout, 'the table of components is there too').toMatch(/^ {2}L3H1 +\+3\.518/m)
})

test('--sources and --tokens in JSON', async () => {
  const model = await open(DEMO)
  const { rows } = (await printed(...ASK, '--sources', 'L3H1', '--tokens', '--top', '2', '--position', '10,14')) as unknown as {
    rows: { sources: { head: string; attribution: number; values: number[] }[]; tokens: { label: string; raised: object[] }[] }[]
  }
  const sources = await model.attributeSources([DEMO_PROMPT], DEMO_TARGET, { heads: ['L3H1'], position: [10, 14] })
  expect(rows.map((row) => row.sources[0]?.values)).toEqual([...sources].map(({ matrix }) => [...matrix.data]))
  expect(rows.map((row) => row.sources[0]?.attribution)).toEqual([...sources.attribution].map((row) => row.value('L3H1')))
  const labels = rows[1]?.tokens.map(({ label }) => label) ?? []
  const tokens = await model.topTokens([DEMO_PROMPT], { components: labels, k: 10, mask: 'special', position: [10, 14] })
  expect(labels).toEqual(expect.arrayContaining(['L3H0', 'L3H1']))
  expect(rows.map((row) => row.tokens[0]?.raised)).toEqual([...tokens].map((of) => of[0]?.raised))
})

test('--tokens: for each component of the table, most raised and most lowered first', async () => {
  const { stdout } = await cli(...ASK, '--unit', 'neuron', '--top', '8', '--tokens')
  const table = stdout.split(/^ {2}component +raises/m)[1] ?? ''
  const lines = [...table.matchAll(/^ {2}(\S+) +"(\S+)" (\+\S+).*?"(\S+)" (−\S+)/gm)]
  expect(lines).toHaveLength(8)
  const components = lines.map(([, label = '']) => label)
  const tokens = await (await open(DEMO)).topTokens([DEMO_PROMPT], { unit: 'neuron', components, mask: 'special', k: 1 })
  for (const [, label = '', raised, up = '', lowered, down = ''] of lines) {
    const of = tokens.get(0, label)
    expect([raised, lowered]).toEqual([of.raised[0]?.text, of.lowered[0]?.text])
    expect(number(up)).toBeCloseTo(of.raised[0]?.value ?? Number.NaN, 1.9)
    expect(number(down)).toBeCloseTo(of.lowered[0]?.value ?? Number.NaN, 1.9)
  }
})

test.each<[string, string[], string[], number]>([
  ['components', [], ['prompt', 'position', 'component', 'kind', 'layer', 'index', 'value'], 26],
  ['sources', ['--sources', 'L3H1,L2H0'], ['prompt', 'position', 'head', 'source', 'token', 'value'], 30],
  [
    'tokens',
    ['--tokens', '--top', '3'],
    ['prompt', 'position', 'component', 'kind', 'layer', 'index', 'direction', 'rank', 'token', 'text', 'value'],
    60,
  ],
])('--format arrow: %s, as a file and through a pipe', async (_, args, names, rows) => {
  const out = join(temporary(), 'result.arrow')
  expect((await cli(...ASK, ...args, '--format', 'arrow', '--out', out)).status).toBe(0)
  const table = tableFromIPC(readFileSync(out))
  expect(table.schema.fields.map(({ name }) => name)).toEqual(names)
  expect(table.numRows).toBe(rows)
  expect(table.schema.metadata.get('logit-prism.kind')).toBe('observed')
  const piped = join(temporary(), 'piped.arrow')
  const line = `"$0" dist/cli/main.js "\${@:2}" --format arrow --quiet > "$1"`
  expect((await run('bash', ['-c', line, process.execPath, piped, ...ASK, ...args], { cwd: ROOT })).status).toBe(0)
  expect(readFileSync(piped).equals(readFileSync(out))).toBe(true)
})

test('--format csv of sources and tokens: texts are quoted where they must be', async () => {
  const sources = await cli(...ASK, '--sources', 'L3H1', '--format', 'csv')
  const [header, ...lines] = sources.stdout.trimEnd().split('\n')
  expect(header).toBe('prompt,position,head,source,token,value')
  expect(lines).toHaveLength(15)
  expect(lines[9]).toMatch(/^0,14,L3H1,9,",",-?\d/)
  const tokens = await cli(...ASK, '--tokens', '--top', '1', '--format', 'csv')
  expect(tokens.stdout).toMatch(/^prompt,position,component,direction,rank,id,token,value\n0,14,L3H1,raised,0,104,Mary,4\.97/)
})
