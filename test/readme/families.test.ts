// README's table of families is what this test measures: every family's checkpoint against float64, by the public API.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type AttributionRow, type Component, Model } from '../../src/index.js'

const README = new URL('../../README.md', import.meta.url)
const FIXTURES = new URL('../fixtures/', import.meta.url)

interface RowReference {
  embed: number
  pos_embed: number | null
  head: number[][]
  attn_bias: number[]
  mlp: number[]
  constant: number
  logit_difference: number
  logit_difference_of_model: number
}

interface Measured {
  family: string
  attribution: number
  certificate: number
  special: string
}

function expected({ kind, layer = 0, index = 0 }: Component, reference: RowReference): number {
  if (kind === 'embed') return reference.embed
  if (kind === 'pos_embed') return reference.pos_embed ?? Number.NaN
  if (kind === 'head') return reference.head[layer]?.[index] ?? Number.NaN
  return (kind === 'mlp' ? reference.mlp : reference.attn_bias)[layer] ?? Number.NaN
}

/** The largest |error| of a row's components and constant; each must be within 1e-4 absolute + 1e-4 relative. */
function largestError(row: AttributionRow, components: readonly Component[], reference: RowReference): number {
  const pairs = components.map((component, c): [number, number] => [row.values[c] ?? Number.NaN, expected(component, reference)])
  pairs.push([row.constant, reference.constant], [row.measured, reference.logit_difference])
  for (const [found, wanted] of pairs) expect(Math.abs(found - wanted)).toBeLessThanOrEqual(1e-4 + 1e-4 * Math.abs(wanted))
  return Math.max(...pairs.map(([found, wanted]) => Math.abs(found - wanted)))
}

async function measure(path: string): Promise<Measured> {
  const directory = new URL(`${path}/`, FIXTURES)
  const family = basename(path)
  const { prompts, answer, against, attributions } = JSON.parse(readFileSync(new URL('reference.json', directory), 'utf8'))
  await using model = await Model.load(directory)
  const targets = prompts.map((_: unknown, i: number) => ({ answer: answer[i], against: against[i] }))
  const result = await model.attribute(prompts, targets)
  expect(result.certified).toBe(true)
  attributions.forEach(({ logit_difference_of_model }: RowReference, i: number) => {
    const afterCap = model.config.logitCap === null ? result.measured[i] : result.measuredAfterCap?.[i]
    expect(afterCap).toBeCloseTo(logit_difference_of_model, 4)
  })
  expect(result.measuredAfterCap === undefined).toBe(model.config.logitCap === null)
  const errors = attributions.map((reference: RowReference, i: number) => largestError(result.row(i), result.components, reference))
  const special = model.config.notes.join('; ') || '–'
  return { family, attribution: Math.max(...errors), certificate: Math.max(...result.residual.map(Math.abs)), special }
}

/** The checkpoints that stand for a family: all of `parity`, and those of `more` that bear its name. */
function checkpoints(): string[] {
  const modelType = (name: string) => JSON.parse(readFileSync(new URL(`more/${name}/config.json`, FIXTURES), 'utf8')).model_type
  const parity = readdirSync(new URL('parity', FIXTURES)).map((name) => `parity/${name}`)
  const more = readdirSync(new URL('more', FIXTURES)).filter((name) => modelType(name) === name)
  return [...parity, ...more.map((name) => `more/${name}`)].sort((a, b) => (basename(a) < basename(b) ? -1 : 1))
}

const paths = checkpoints()
const header = '| family | attribution | certificate | what is special |\n|---|---|---|---|\n'
const BLOCK = /(<!-- families -->\n\n)([^]*?)(\n<!-- \/families -->)/

describe('every family', async () => {
  const measured = await Promise.all(paths.map(measure))
  const line = ({ family, attribution, certificate, special }: Measured) => {
    return `| ${family} | ${attribution.toExponential(0)} | ${certificate.toExponential(0)} | ${special} |\n`
  }
  if (process.env.UPDATE_README) {
    const table = header + measured.map(line).join('')
    const readme = readFileSync(README, 'utf8')
    writeFileSync(
      README,
      readme.replace(BLOCK, (_, open: string, __, close: string) => open + table + close),
    )
  }
  const rows = (BLOCK.exec(readFileSync(README, 'utf8'))?.[2] ?? '').trim().split('\n').slice(2)
  const quoted = new Map(rows.map((row) => row.split('|').map((cell) => cell.trim())).map((cells) => [cells[1], cells]))

  test('has a row in README, and no other', () => expect([...quoted.keys()]).toEqual(paths.map((path) => basename(path))))

  // another processor rounds otherwise: the errors may differ, by less than ten times
  test.each(measured)('$family is as README says', ({ family, attribution, certificate, special }) => {
    const [, , quotedAttribution, quotedCertificate, quotedSpecial] = quoted.get(family) ?? []
    expect(quotedSpecial).toBe(special)
    expect(attribution).toBeLessThan(10 * Number(quotedAttribution))
    expect(certificate).toBeLessThan(10 * Number(quotedCertificate))
  })
})
