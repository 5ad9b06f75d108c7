// logit-prism attribute: one prompt, one target, the components that add to it.
import { InvalidArgumentError } from 'commander'
import type { Attribution, AttributionRow } from '../attribution.js'
import type { Position } from '../asked.js'
import type { AttributeOptions, Model } from '../model.js'
import type { Target } from '../targets.js'
import type { Prompt, Token } from '../tokens.js'
import { type CommonOptions, emit, modelLine, note, openModel, tokenText } from './session.js'
import { attributionTable, quoted } from './table.js'
import { type Terminal, terminal, wrap } from './terminal.js'

interface Options extends CommonOptions {
  readonly answer: string[]
  readonly against?: string[]
  readonly unit: 'layer' | 'head'
  readonly position: string
  readonly norm: 'frozen' | 'none'
  readonly top: number
  readonly ids?: boolean
  readonly bos?: boolean
  readonly format: 'table' | 'json' | 'csv'
  readonly out?: string
}

/** What a report is made from. */
interface Report {
  readonly model: Model
  readonly path: string | undefined
  readonly result: Attribution
  readonly options: Options
}

export async function runAttribute(text: string, options: Options, signal: AbortSignal): Promise<void> {
  const prompt = parsePrompt(text, options)
  const target = parseTarget(options)
  const position = parsePosition(options.position)
  await using model = await openModel(options, signal)
  if (options.model === undefined) note(options, 'no --model given: this is the bundled demo model, which knows 342 words')
  const request: AttributeOptions = { unit: options.unit, norm: options.norm, position, signal }
  const result = await model.attribute(
    [prompt],
    target,
    options.bos === undefined ? request : { ...request, prependBos: options.bos },
  )
  noteUnknown(model, result, options)

  const report = { model, path: options.model, result, options }
  const screen = terminal(process.stdout)
  const toFile = options.out !== undefined
  const plain: Terminal = { ...screen, columns: 100, bold: String, dim: String, red: String, green: String, cyan: String }
  const render = { table: () => table(report, toFile ? plain : screen), json: () => json(report), csv: () => csv(report) }
  await emit(render[options.format](), options.out)
}

function parsePrompt(text: string, options: Options): Prompt {
  if (!options.ids) return text
  return text.split(',').map((id) => parseId('the prompt', id))
}

function parseId(what: string, text: string): number {
  if (/^\s*\d+\s*$/.test(text)) return Number(text)
  throw new InvalidArgumentError(`with --ids, ${what} is a token id, not '${text}'.`)
}

function parseTarget(options: Options): Target {
  const token = (text: string): Token => (options.ids ? parseId('a token', text) : text)
  const named = (list: string[] | undefined, name: string) => list?.length === 1 && list[0] === `:${name}`
  const { answer, against } = options
  const special = (['next', 'predicted'] as const).find((name) => named(answer, name))
  const minus = against && { against: named(against, 'mean') ? ('mean' as const) : against.map(token) }
  return { answer: special ?? answer.map(token), ...minus }
}

function parsePosition(text: string): Position {
  if (text === 'last' || text === 'all') return text
  const positions = text.split(',').map(Number)
  if (/^-?\d+(,-?\d+)*$/.test(text)) return positions
  throw new InvalidArgumentError(`--position is 'last', 'all', or whole numbers separated by commas, not '${text}'.`)
}

function noteUnknown(model: Model, result: Attribution, options: Options): void {
  const unknown = result.ids(0).filter((id) => id === model.tokenizer?.unknownToken).length
  if (unknown > 0 && !options.ids) {
    const words = unknown === 1 ? 'one piece of the prompt is' : `${unknown} pieces of the prompt are`
    note(options, `${words} not in the vocabulary and became ${quoted(tokenText(model, model.tokenizer?.unknownToken ?? 0))}`)
  }
}

/** A target in words: logit(" Mary") − logit(" John"). */
function targetText(model: Model, row: AttributionRow): string {
  if ('direction' in row.target) return 'a direction'
  const term = (weight: number, of: string, first: boolean) => {
    const size = Math.abs(weight) === 1 ? '' : `${Number(Math.abs(weight).toFixed(3))} · `
    const sign = weight < 0 ? (first ? '−' : ' − ') : first ? '' : ' + '
    return `${sign}${size}${of}`
  }
  const terms = [...row.target.tokens]
    .sort((a, b) => b.weight - a.weight)
    .map(({ id, weight }) => ({ weight, of: `logit(${quoted(tokenText(model, id))})` }))
  if (row.target.mean !== 0) terms.push({ weight: row.target.mean, of: 'mean logit' })
  return terms.map(({ weight, of }, i) => term(weight, of, i === 0)).join('')
}

function rowsOf(result: Attribution): AttributionRow[] {
  return Array.from(result.rows.prompt, (_, i) => result.row(i))
}

function table({ model, path, result, options }: Report, screen: Terminal): string {
  const ids = result.ids(0)
  const text = model.tokenizer?.decode(ids) ?? [...ids].join(',')
  const lines = ['']
  const field = (name: string, value: string) => {
    wrap(value, screen.columns - 12).forEach((part, i) => lines.push(`  ${screen.dim((i === 0 ? name : '').padEnd(8))}  ${part}`))
  }
  field('model', modelLine(model, path))
  field('prompt', text)
  for (const row of rowsOf(result)) {
    lines.push('')
    field('at', `position ${row.position}, behind ${quoted(tokenText(model, ids[row.position] ?? 0))}`)
    field('target', screen.bold(targetText(model, row)))
    lines.push('', ...attributionTable(row, options.top, result.certified, screen))
  }
  return `${lines.join('\n')}\n\n`
}

function json({ model, path, result, options }: Report): string {
  const ids = [...result.ids(0)]
  const rows = rowsOf(result).map((row) => ({
    position: row.position,
    token: tokenText(model, ids[row.position] ?? 0),
    target: row.target,
    targetText: targetText(model, row),
    components: result.components.map((component, c) => ({ ...component, value: row.values[c] })),
    constant: row.constant,
    total: row.total,
    measured: row.measured,
    measuredAfterCap: row.measuredAfterCap,
    residual: row.residual,
    tolerance: row.tolerance,
  }))
  const what = { kind: 'observed', model: path ?? 'demo', unit: options.unit, norm: options.norm, certified: result.certified }
  const prompt = { ids, tokens: ids.map((id) => tokenText(model, id)) }
  return `${JSON.stringify({ ...what, prompt, rows }, null, 2)}\n`
}

/** Tidy: a line per row and component; the two sides of the certificate as kinds of their own. */
function csv({ result }: Report): string {
  const lines = ['prompt,position,component,kind,layer,index,value']
  for (const row of rowsOf(result)) {
    result.components.forEach(({ label, kind, layer, index }, c) => {
      lines.push([row.prompt, row.position, label, kind, layer ?? '', index ?? '', row.values[c]].join(','))
    })
    const sides = { constant: row.constant, total: row.total, measured: row.measured, measured_after_cap: row.measuredAfterCap }
    for (const [kind, value] of Object.entries({ ...sides, residual: row.residual, tolerance: row.tolerance })) {
      if (value !== undefined) lines.push([row.prompt, row.position, kind, kind, '', '', value].join(','))
    }
  }
  return `${lines.join('\n')}\n`
}
