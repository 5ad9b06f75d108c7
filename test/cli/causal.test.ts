// logit-prism attribute --causal, as a user runs it: what is printed against what the API returns.
import { tableFromIPC } from 'apache-arrow'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Causal, type Effect, type ReplaceWith } from '../../src/index.js'
import { cli, DEMO, DEMO_PROMPT, DEMO_TARGET, open, temporary } from '../helpers.js'

const ASK = ['attribute', DEMO_PROMPT, '--answer', ' Mary', '--against', ' John', '--causal']
const OTHER = 'When John and Anna went to the park, John gave a ring to'

const sweep = async (options: { set?: ReplaceWith; ablateAt?: 'all'; unit?: 'layer' } = {}): Promise<Causal> =>
  (await open(DEMO)).ablate([DEMO_PROMPT], DEMO_TARGET, options)
const number = (text: string | undefined) => Number((text ?? '').replace('−', '-'))
const size = ({ direct, total }: Effect) => Math.max(Math.abs(direct), Math.abs(total))

/** Lines of the table: label, attribution, total, verdict, and what took over. */
function table(stdout: string) {
  const line = /^ {2}(\S.*?) +([+−]\d+\.\d{3})(?: +\d+\.\d %)? +([+−]\d+\.\d{3}) {2}([a-z]+) *(.*)$/gm
  return [...stdout.matchAll(line)].map(([, label = '', value, total, verdict, tookOver = '']) => {
    const takers = [...tookOver.matchAll(/(?:^|, )(.+?) ([+−]\d+\.\d\d)(?=,|$)/g)]
    return {
      label,
      value: number(value),
      total: number(total),
      verdict,
      takers: takers.map(([, by, m]) => [by, number(m)] as const),
    }
  })
}

test('the table: total effect, verdict, who took over; largest effects first', async () => {
  const { status, stdout, stderr } = await cli(...ASK)
  expect([status, stderr.includes('demo model')]).toEqual([0, true])
  const row = (await sweep()).row(0)
  const expected = row.byTotal(26).sort((a, b) => size(b) - size(a))
  const found = table(stdout)
  expect(found.map(({ label }) => label)).toEqual(expected.slice(0, 12).map(({ label }) => label))
  for (const { label, value, total, verdict, takers } of found) {
    const effect = row.get(label)
    expect(value).toBeCloseTo(effect.direct, 2.9) // zero ablation: the attribution
    expect(total).toBeCloseTo(effect.total, 2.9)
    expect(verdict).toBe(effect.verdict)
    const all = new Map([...effect.mediators.map(({ label: by, value: m }) => [by, m] as const), ['norm', effect.throughNorm]])
    takers.forEach(([by, m]) => expect(m).toBeCloseTo(all.get(by ?? '') ?? Number.NaN, 1.9))
    const largest = [...all].sort(([, a], [, b]) => Math.abs(b) - Math.abs(a))[0]
    if (Math.abs(largest?.[1] ?? 0) > 0.05 * size(effect)) expect(takers[0]?.[0]).toBe(largest?.[0])
  }
  expect(found.find(({ label }) => label === 'L3H0')?.takers[0]?.[0]).toBe('norm')
  const words = stdout.replaceAll(/\s+/g, ' ')
  expect(words).toMatch(/Ablation of 26 components in \d+\.\d\d s: each was replaced by zero, alone, at this position,/)
  expect(stdout).toMatch(/^ {2}14 more/m)
  expect(stdout).toContain('certified')
})

test('it fits a terminal of 60 to 120 columns', async () => {
  const { causalTable } = await import('../../src/cli/causal.js')
  const { terminal } = await import('../../src/cli/terminal.js')
  const model = await open(DEMO)
  const [causal, attribution] = [await sweep({ ablateAt: 'all' }), await model.attribute([DEMO_PROMPT], DEMO_TARGET)]
  for (const columns of [60, 72, 80, 100, 120]) {
    const screen = { ...terminal(process.stdout), columns }
    const asked = { row: attribution.row(0), i: 0, k: 26, certified: true }
    const lines = causalTable({ causal, seconds: 0.1 }, asked, screen)
    lines.forEach((line) => expect(line.length, line).toBeLessThanOrEqual(columns))
    expect(
      lines.some((line) => line.includes('indirect') && / L3H[01] [+−]/.test(line)),
      String(columns),
    ).toBe(true)
  }
})

test('--format json: the word, and every effect', async () => {
  const { status, stdout, stderr } = await cli(...ASK, '--format', 'json', '--quiet', '--ablate-at', 'all')
  expect([status, stderr]).toEqual([0, ''])
  const json = JSON.parse(stdout) as {
    kind: string
    ablation: Record<string, unknown>
    rows: { components: { label: string; value: number; effect: Effect }[] }[]
  }
  const row = (await sweep({ ablateAt: 'all' })).row(0)
  expect(json.kind).toBe('causal')
  expect(json.ablation).toMatchObject({ unit: 'head', set: 'zero', ablateAt: 'all', components: 26, certified: true })
  for (const { label, effect } of json.rows[0]?.components ?? []) {
    const { label: _, ...expected } = row.get(label)
    expect(effect).toEqual(JSON.parse(JSON.stringify(expected)))
  }
})

test('--format csv and arrow; --set mean over a file', async () => {
  const file = join(temporary(), 'reference.txt')
  writeFileSync(file, `${OTHER}\r\n\n${DEMO_PROMPT}\n`)
  const causal = await sweep({ set: { mean: [OTHER, DEMO_PROMPT] }, unit: 'layer' })
  const { status, stdout } = await cli(...ASK, '--format', 'csv', '--set', 'mean', '--reference', file, '--unit', 'layer')
  expect(status).toBe(0)
  const [head, ...lines] = stdout.trimEnd().split('\n')
  expect(head).toBe('prompt,position,component,kind,layer,index,value,direct,total,through_norm,verdict,through')
  expect(lines).toHaveLength(causal.ablated.length)
  lines.forEach((line, i) => {
    const [, , label = '', , , , value, direct, total, norm, verdict, takers = ''] = line.split(',')
    const effect = causal.row(0).get(label)
    expect([direct, total, norm].map(Number)).toEqual([effect.direct, effect.total, effect.throughNorm])
    expect([Number(value), verdict]).toEqual([causal.attributions[i], effect.verdict])
    for (const taker of takers === '' ? [] : takers.split('; ')) {
      const at = taker.lastIndexOf(' ')
      const all = [...effect.mediators, { label: 'norm', value: effect.throughNorm }]
      expect(Number(taker.slice(at + 1))).toBe(all.find((by) => by.label === taker.slice(0, at))?.value)
    }
  })
  const out = join(temporary(), 'causal.arrow')
  expect((await cli(...ASK, '--format', 'arrow', '--out', out)).status).toBe(0)
  const arrow = tableFromIPC(readFileSync(out))
  expect(arrow.schema.metadata.get('logit-prism.kind')).toBe('causal')
  expect(arrow.get(3)?.total).toBe((await sweep()).total[3])
})

test('beside sources and tokens', async () => {
  const { status, stdout } = await cli(...ASK, '--sources', 'L3H0', '--tokens', '--top', '3')
  expect(status).toBe(0)
  expect(table(stdout)).toHaveLength(3)
  expect(stdout).toContain('Where L3H0 moved')
  expect(stdout).toContain('raises')
})

test.each([
  ['without --causal', ASK.slice(0, -1), ['--ablate-at', 'all']],
  ['without --causal', ASK.slice(0, -1), ['--set', 'zero']],
  ['neurons', ASK, ['--unit', 'neuron']],
  ['no norm', ASK, ['--norm', 'none']],
  ['a convention', ASK, ['--convention', 'transformerlens']],
  ['a picture', ASK, ['--format', 'svg']],
  ['two tables', ASK, ['--format', 'csv', '--tokens']],
  ['a mean of nothing', ASK, ['--set', 'mean']],
  ['a reference of zero', ASK, ['--set', 'zero', '--reference', 'x']],
  ['another place', ASK, ['--ablate-at', 'last']],
])('wrong usage: %s', async (_, ask, more) => {
  const { status, stdout, stderr } = await cli(...ask, ...more)
  expect([status, stdout]).toEqual([2, ''])
  expect(stderr).not.toBe('')
})

test('a reference that is not there', async () => {
  const { status, stderr } = await cli(...ASK, '--set', 'mean', '--reference', join(temporary(), 'none.txt'))
  expect(status).toBe(1)
  expect(stderr).toContain('IO_ERROR')
})
