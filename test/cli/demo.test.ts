// logit-prism demo and info, and that tables fit where no terminal is.
import { expect, test } from 'vitest'
import { cli, DEMO, DEMO_PROMPT, DEMO_TARGET, fixture, open, readJson } from '../helpers.js'

interface Figures {
  readonly demo: { probability: number; logit_difference: number; attribution: Record<string, number> }
  readonly planted_attention: { movers_to_indirect_object: Record<string, number> }
}

const figures = readJson<Figures>(DEMO, 'figures.json')
const number = (text: string | undefined) => Number((text ?? '').replace('−', '-'))

test('the demo: prediction, heads, certificate and what it does not say', async () => {
  const { status, stdout, stderr } = await cli('demo')
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout).toContain(DEMO_PROMPT)
  expect(number(/"Mary" (\d+\.\d) %/.exec(stdout)?.[1])).toBeCloseTo(100 * figures.demo.probability, 0.9)
  const row = (await (await open(DEMO)).attribute([DEMO_PROMPT], DEMO_TARGET)).row(0)
  const lines = [...stdout.matchAll(/^ {2}(\S.*?) +([+−]\d+\.\d{3}) +\d+\.\d %/gm)].filter(([, label]) => !label?.endsWith('more'))
  expect(lines.map(([, label]) => label)).toEqual(row.byMagnitude(8).map(({ label }) => label))
  for (const [, label = '', value] of lines) expect(number(value)).toBeCloseTo(figures.demo.attribution[label] ?? Number.NaN, 2.9)
  expect(number(/total +([+−]\d+\.\d{3})/.exec(stdout)?.[1])).toBeCloseTo(figures.demo.logit_difference, 2.9)
  expect(stdout).toContain('certified')
  // the head that adds most looks at the first name, at position 2
  expect(stdout).toMatch(/Where L3H1, the head that adds most/)
  const looks = [...stdout.matchAll(/"(\S+)" +position +(\d+) +(\d+\.\d) %/g)]
  expect(looks[0]?.slice(1, 3)).toEqual(['Mary', '2'])
  expect(number(looks[0]?.[3])).toBeGreaterThan(90)
  expect(stdout).toContain('positive control')
  expect(stdout).toContain('Attribution observes.')
})

test('the command that the demo names runs', async () => {
  const { stdout } = await cli('demo')
  const command = /npx logit-prism (.*)$/m.exec(stdout)?.[1] ?? ''
  const args = [...command.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '')
  const { status, stdout: table } = await cli(...args)
  expect(status).toBe(0)
  expect(table).toContain('logit("Paris") − logit("London")')
  expect(table).toContain('certified')
})

const ASK = ['attribute', DEMO_PROMPT, '--answer', ' Mary']
test.each<[string, string[]]>([
  ['demo', ['demo']],
  ['info', ['info']],
  ['info of a checkpoint with notes', ['info', '--model', fixture('gpt2_scaled')]],
  ['a pair', [...ASK, '--against', ' John']],
  ['a single logit', ASK],
  ['against the mean', [...ASK, '--against', ':mean']],
  ['layers', [...ASK, '--unit', 'layer']],
  ['all components', [...ASK, '--top', '26', '--position', 'all']],
  ['no norm', [...ASK, '--norm', 'none']],
  ['a fact', ['attribute', 'The Eiffel Tower is in the city of', '--answer', ' Paris', '--against', ' London']],
  ['many answers', [...ASK, ...['Anna', 'Peter', 'Emma', 'Paul', 'Laura', 'Jack'].flatMap((name) => ['--answer', ` ${name}`])]],
  ['neurons, sources and tokens', [...ASK, '--unit', 'neuron', '--sources', 'L3H1', '--tokens']],
  ['the lens', ['lens', DEMO_PROMPT, '--answer', ' Mary', '--against', ' John']],
  ['ids', ['attribute', '20,75,100,11', '--ids', '--answer', '6', '--against', '5', '--model', fixture('gpt2')]],
])('in a pipe: 80 columns, no colours: %s', async (_, args) => {
  const { status, stdout, stderr } = await cli(...args)
  expect(status).toBe(0)
  expect(`${stdout}${stderr}`).not.toContain('\u001b')
  const mayBeLonger = (line: string) => /^ {2}(prompt|model) |^ {4}npx |\/fixtures\//.test(line)
  const long = stdout.split('\n').filter((line) => [...line].length > 80 && !mayBeLonger(line))
  expect(long).toEqual([])
})
