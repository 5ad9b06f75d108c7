// logit-prism attribute: one prompt, one target, the components that add to it, and on demand where its heads moved from
// and which tokens its components write.
import type { AttributeOptions, Attribution, AttributionRow } from '../attribution.js'
import type { Model } from '../model.js'
import { toSvg } from '../plot.js'
import type { AttributionSources } from '../sources.js'
import type { Target } from '../targets.js'
import type { Prompt } from '../tokens.js'
import type { TopTokens } from '../top-tokens.js'
import {
  type AskOptions,
  head,
  noteModel,
  noteUnknown,
  parsePrompt,
  parseRows,
  parseTarget,
  rowHead,
  targetText,
  usage,
} from './ask.js'
import {
  causalCsv,
  causalJson,
  type CausalOptions,
  causalTable,
  check,
  checkCausal,
  type Checked,
  effectJson,
  largestEffects,
} from './causal.js'
import { arrowFile, type Cell, csvText, refuseTerminal } from './formats.js'
import { emit, openModel, tokenText } from './session.js'
import { sourcesCsv, sourcesJson, sourcesTables } from './sources.js'
import { attributionTable, largest } from './table.js'
import { screenFor, type Terminal } from './terminal.js'
import { TOKENS, writtenCsv, writtenJson, writtenTable } from './written.js'

interface Options extends AskOptions, CausalOptions {
  readonly unit: 'layer' | 'head' | 'neuron'
  readonly norm: 'frozen' | 'none'
  readonly convention: 'default' | 'transformerlens'
  readonly top: number
  readonly sources?: string
  readonly tokens?: boolean
}

/** What a report is made from. */
interface Report {
  readonly model: Model
  readonly result: Attribution
  readonly sources: AttributionSources | undefined
  readonly tokens: TopTokens | undefined
  readonly checked: Checked | undefined
  readonly options: Options
}

export async function runAttribute(text: string, options: Options, signal: AbortSignal): Promise<void> {
  const prompt = parsePrompt(text, options)
  const target = parseTarget(options)
  if (!target) throw usage("required option '--answer <token>' not specified")
  const rows = { ...parseRows(options), signal }
  checkTogether(options)
  await using model = await openModel(options, signal)
  noteModel(options)
  const report = await ask(model, prompt, target, rows, options)
  noteUnknown(model, report.result.ids(0), options)
  const render = {
    table: () => table(report, screenFor(options.out)),
    json: () => json(report),
    csv: () => csv(report),
    arrow: () => arrow(report),
    svg: () => picture(report),
  }
  await emit(await render[options.format](), options.out)
}

function checkTogether(options: Options): void {
  refuseTerminal(options)
  checkCausal(options)
  const { sources, tokens, convention, format } = options
  if (convention === 'transformerlens' && (sources !== undefined || tokens)) {
    throw usage('--sources and --tokens are of heads with their value bias: leave --convention out.')
  }
  if (format === 'svg' && tokens) throw usage('--format svg has no picture of --tokens: leave it out.')
  if ((format === 'csv' || format === 'arrow') && sources !== undefined && tokens) {
    throw usage(`--format ${format} holds one table: --sources or --tokens, not both.`)
  }
  if ((format === 'csv' || format === 'arrow') && options.causal && (sources !== undefined || tokens)) {
    throw usage(`--format ${format} holds one table: --causal, or --sources or --tokens.`)
  }
}

async function ask(
  model: Model,
  prompt: Prompt,
  target: Target,
  rows: Pick<AttributeOptions, 'position' | 'prependBos' | 'signal'>,
  options: Options,
): Promise<Report> {
  const { unit, norm, convention, top } = options
  const heads = options.sources?.split(',').map((label) => label.trim())
  const sources = heads && (await model.attributeSources([prompt], target, { ...rows, heads, norm }))
  const cut = unit === 'neuron' && Number.isFinite(top) ? { top } : {} // the table needs no more, and a large model has millions
  const result =
    sources && unit === 'head'
      ? sources.attribution
      : await model.attribute([prompt], target, { ...rows, unit, norm, convention, ...cut })
  const checked = options.causal ? await check(model, prompt, target, rows, options) : undefined
  const listed = [...new Set(Array.from(result, (row, i) => labelsOf(row, i, top, checked)).flat())]
  const tokens = options.tokens
    ? await model.topTokens([prompt], {
        ...rows,
        unit,
        components: listed,
        k: Math.min(TOKENS, model.config.dVocab),
        mask: model.tokenizer ? 'special' : [],
      })
    : undefined
  return { model, result, sources, tokens, checked, options }
}

/** The components that the table of a row lists. */
function labelsOf(row: AttributionRow, i: number, top: number, checked: Checked | undefined): string[] {
  const shown = checked ? largestEffects(checked, i, top) : largest(row, top)
  return shown.map(({ label }) => label)
}

function table({ model, result, sources, tokens, checked, options }: Report, screen: Terminal): string {
  const ids = result.ids(0)
  const lines = head(model, options.model, ids, screen)
  Array.from(result).forEach((row, i) => {
    const { top } = options
    const main = checked
      ? causalTable(checked, { row, i, k: top, certified: result.certified }, screen)
      : attributionTable(row, top, result.certified, screen)
    lines.push(...rowHead(model, row, ids, screen), ...main)
    if (sources) lines.push(...sourcesTables(sources, i, top, screen))
    const labels = labelsOf(row, i, top, checked)
    if (tokens) lines.push(...writtenTable(tokens, { i, labels, masked: model.tokenizer !== undefined }, screen))
  })
  return `${lines.join('\n')}\n\n`
}

function json({ model, result, sources, tokens, checked, options }: Report): string {
  const ids = [...result.ids(0)]
  const rows = Array.from(result, (row, i) => ({
    position: row.position,
    token: tokenText(model, ids[row.position] ?? 0),
    target: row.target,
    targetText: targetText(model, row.target),
    components: result.components.map((component, c) => ({
      ...component,
      value: row.values[c],
      effect: checked && effectJson(checked, i, component.label),
    })),
    constant: row.constant,
    total: row.total,
    measured: row.measured,
    measuredAfterCap: row.measuredAfterCap,
    residual: row.residual,
    tolerance: row.tolerance,
    sources: sources && sourcesJson(sources, i),
    tokens: tokens?.row(i).map(writtenJson),
  }))
  const what = {
    kind: (checked?.causal ?? result).kind,
    model: options.model ?? 'demo',
    ...result.method,
    certified: result.certified,
  }
  const ablation = checked && causalJson(checked)
  const prompt = { ids, tokens: ids.map((id) => tokenText(model, id)) }
  return `${JSON.stringify({ ...what, ablation, prompt, rows }, null, 2)}\n`
}

/** Tidy: a line per row and component; the two sides of the certificate as kinds of their own. */
function csv({ result, sources, tokens, checked }: Report): string {
  if (checked) return causalCsv(checked)
  if (sources) return sourcesCsv(sources)
  if (tokens) return writtenCsv(tokens)
  const lines: Cell[][] = []
  for (const row of result) {
    result.components.forEach(({ label, kind, layer, index }, c) => {
      lines.push([row.prompt, row.position, label, kind, layer, index, row.values[c]])
    })
    const sides = { constant: row.constant, total: row.total, measured: row.measured, measured_after_cap: row.measuredAfterCap }
    for (const [kind, value] of Object.entries({ ...sides, residual: row.residual, tolerance: row.tolerance })) {
      if (value !== undefined) lines.push([row.prompt, row.position, kind, kind, undefined, undefined, value])
    }
  }
  return csvText(['prompt', 'position', 'component', 'kind', 'layer', 'index', 'value'], lines)
}

/** A heat map, bars for neurons; of sources one row. */
async function picture({ result, sources, options }: Report): Promise<string> {
  const one = result.rows.prompt.length === 1
  if (sources && !one) throw usage('--format svg of --sources is a picture of one row: name one --position.')
  if (sources) return toSvg(sources.plot())
  const top = options.unit === 'neuron' && Number.isFinite(options.top) ? { top: options.top } : {}
  return toSvg(result.plot(one ? { row: 0, ...top } : top))
}

/** One table in a file: causes, sources or tokens where they were asked for, else the attribution. */
async function arrow({ result, sources, tokens, checked }: Report): Promise<Uint8Array> {
  return arrowFile(await (checked?.causal ?? sources ?? tokens ?? result).toArrow())
}
