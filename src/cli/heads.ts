// logit-prism heads: the heads that attribution ranks highest, in both their halves.
import type { HeadAtRow, HeadDescription, Partners } from '../heads.js'
import type { Model } from '../model.js'
import type { MovedToken } from '../top-tokens.js'
import {
  type AskOptions,
  head as heading,
  noteModel,
  noteUnknown,
  parsePrompt,
  parseRows,
  parseTarget,
  targetText,
  usage,
} from './ask.js'
import { called, decimals } from './patterns.js'
import { emit, openModel, tokenText } from './session.js'
import { percent, signed } from './table.js'
import { screenFor, type Terminal } from './terminal.js'
import { quoted, wrap } from './text.js'

interface Options extends Omit<AskOptions, 'format'> {
  readonly top: number
  readonly tokens: number
  readonly composition: boolean
  readonly format: 'table' | 'json'
}

/** What a report is made from. */
interface Report {
  readonly model: Model
  readonly ids: Uint32Array
  readonly target: string
  readonly heads: readonly HeadDescription[]
  readonly options: Options
}

export async function runHeads(text: string, options: Options, signal: AbortSignal): Promise<void> {
  const prompt = parsePrompt(text, options)
  const target = parseTarget(options)
  if (!target) throw usage("required option '--answer <token>' not specified")
  const rows = { ...parseRows(options), signal }
  await using model = await openModel(options, signal)
  noteModel(options)
  const { top, tokens, composition } = options
  const k = Math.min(tokens, model.config.dVocab)
  const heads = await model.describeHeads([prompt], target, { ...rows, top, k, composition })
  const { targets, ids } = await asked(model, prompt, target, rows)
  noteUnknown(model, ids, options)
  const report = { model, ids, target: targets, heads, options }
  await emit(options.format === 'json' ? json(report) : table(report, screenFor(options.out)), options.out)
}

/** The target in words and the ids that were run. */
async function asked(
  model: Model,
  prompt: ReturnType<typeof parsePrompt>,
  target: NonNullable<ReturnType<typeof parseTarget>>,
  rows: ReturnType<typeof parseRows>,
): Promise<{ targets: string; ids: Uint32Array }> {
  const result = await model.attribute([prompt], target, { ...rows, unit: 'layer' })
  const words = new Set(result.targets.map((each) => targetText(model, each)))
  return { targets: [...words].join('; '), ids: result.ids(0) }
}

function table({ model, ids, target, heads, options }: Report, screen: Terminal): string {
  const lines = heading(model, options.model, ids, screen)
  lines.push(`  ${screen.dim('target')}    ${screen.bold(target)}`)
  for (const head of heads) lines.push('', ...oneHead(model, ids, head, screen))
  const advice =
    'Where a head looks (its pattern) and what it moves are two things. σ: above pairs of random heads, in their standard deviations. All of this observes, or is read from weights: only an ablation shows that a head matters.'
  lines.push('', ...wrap(advice, Math.min(screen.columns, 100) - 4).map((line) => screen.dim(`  ${line}`)))
  return `${lines.join('\n')}\n\n`
}

/** Field by field: pattern, what it did at every row, copying, partners. */
function oneHead(model: Model, ids: Uint32Array, head: HeadDescription, screen: Terminal): string[] {
  const { label, mean, pattern, rows, copying, composition } = head
  const room = Math.max(24, screen.columns - 15)
  const field = (name: string, text: string) =>
    wrap(text, room).map((part, i) => `  ${screen.dim((i === 0 ? name : '').padEnd(9))}  ${part}`)
  const lines = [
    `  ${screen.bold(label)}  ${signed(mean).trim()}`,
    ...field('pattern', `${called(pattern)}, margin ${decimals(pattern.margin)}`),
  ]
  for (const row of rows) {
    const at = rows.length === 1 ? '' : ` at ${row.position} ${quoted(tokenText(model, ids[row.position] ?? 0), 12)}`
    const looks = row.looks.map(({ token, position, weight }) => `${quoted(token, 12)} (${position}) ${percent(weight).trim()}`)
    lines.push(
      ...field('looks at', looks.join(', ')),
      ...field('moved', `${signed(row.value).trim()}${at} from ${sources(row)}`),
      ...field('raises', moved(row.raised)),
      ...field('lowers', moved(row.lowered)),
    )
  }
  lines.push(...field('copies', copyingText(copying)))
  for (const kind of composition ? (['Q', 'K', 'V'] as const) : []) {
    lines.push(...field(`${kind} comp.`, partnersText(composition?.[kind])))
  }
  return lines
}

function sources({ sources: list }: HeadAtRow): string {
  return list.map(({ token, position, value }) => `${quoted(token, 16)} (${position}) ${signed(value).trim()}`).join(', ')
}

function moved(tokens: readonly MovedToken[]): string {
  return tokens.map(({ text, value }) => `${quoted(text, 16)} ${signed(value, 2).trim()}`).join(', ')
}

function copyingText(copying: HeadDescription['copying']): string {
  if ('refused' in copying) return `not known: ${copying.refused}`
  const { eigenvalueShare, top1, meanRank, sampled } = copying
  const first = `${(top1 * 100).toFixed(1)} % of ${sampled} tokens raise themselves most`
  return `eigenvalues ${decimals(eigenvalueShare)} (1 copies, −1 opposes); ${first}, mean rank ${meanRank.toFixed(1)}`
}

function partnersText(partners: Partners | { readonly refused: string } | undefined): string {
  if (partners === undefined) return ''
  if ('refused' in partners) return `not known: ${partners.refused}`
  const list = (pairs: Partners['from'], end: 'from' | 'to') =>
    pairs.map((pair) => `${pair[end]} ${pair.score.toFixed(3)} (${signed(pair.deviations, 1).trim()}σ)`).join(', ')
  const above = (pairs: Partners['from']) => pairs.filter(({ deviations }) => deviations > 0)
  const [from, to] = [above(partners.from), above(partners.to)]
  const parts = [
    ...(from.length > 0 ? [`reads ${list(from, 'from')}`] : []),
    ...(to.length > 0 ? [`is read by ${list(to, 'to')}`] : []),
  ]
  return parts.join('; ') || 'with no head more than random ones'
}

function json({ model, ids, target, heads, options }: Report): string {
  const prompt = { ids: [...ids], tokens: Array.from(ids, (id) => tokenText(model, id)) }
  return `${JSON.stringify({ model: options.model ?? 'demo', prompt, target, heads }, null, 2)}\n`
}
