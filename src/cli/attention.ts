// logit-prism attention: where heads look in one prompt, and what that is called.
import type { Attention, HeadPattern, PatternScore } from '../attention.js'
import type { Model } from '../model.js'
import { toSvg } from '../plot.js'
import { head as heading, noteModel, noteUnknown, parsePrompt, type PromptedOptions, usage } from './ask.js'
import { type Cell, csvText } from './formats.js'
import { heatLines } from './heat.js'
import { called, columnOf, decimals, named, strongest } from './patterns.js'
import { emit, openModel } from './session.js'
import { screenFor, type Terminal } from './terminal.js'
import { cut, wrap } from './text.js'

interface Options extends PromptedOptions {
  readonly head?: string[]
  readonly format: 'table' | 'json' | 'csv' | 'svg'
}

/** What a report is made from. */
interface Report {
  readonly model: Model
  readonly attention: Attention
  readonly heads: readonly HeadPattern[]
  readonly options: Options
}

export async function runAttention(text: string, options: Options, signal: AbortSignal): Promise<void> {
  const prompt = parsePrompt(text, options)
  const { bos, head: asked, format } = options
  if (format === 'svg' && asked?.length !== 1) throw usage('--format svg is a picture of one head: name one with --head.')
  await using model = await openModel(options, signal)
  noteModel(options)
  const attention = await model.attention([prompt], {
    signal,
    ...(asked === undefined ? {} : { heads: [...new Set(asked)] }),
    ...(bos === undefined ? {} : { prependBos: bos }),
  })
  noteUnknown(model, attention.ids(0), options)
  const report = { model, attention, heads: await attention.classify(), options }
  const render = {
    table: () => table(report, screenFor(options.out)),
    json: () => json(report),
    csv: () => (asked === undefined ? scoresCsv(report) : patternsCsv(report)),
    svg: () => picture(report),
  }
  await emit(await render[format](), options.out)
}

function table(report: Report, screen: Terminal): string {
  const { model, attention, heads, options } = report
  const lines = heading(model, options.model, attention.ids(0), screen)
  if (options.head === undefined) lines.push(...allHeads(heads, screen))
  else for (const head of heads) lines.push(...oneHead(report, head, screen))
  const advice = 'One prompt says little: names need repeated tokens and some length.'
  lines.push('', ...wrap(`${advice} model.detectHeads() tests heads on random tokens.`, columns(screen)).map(dimmed(screen)))
  return `${lines.join('\n')}\n\n`
}

const columns = (screen: Terminal) => Math.min(screen.columns, 100) - 4
const dimmed = (screen: Terminal) => (line: string) => screen.dim(`  ${line}`)

/** A line per head: what it is called, how strongly, and how far the next name is. */
function allHeads(heads: readonly HeadPattern[], screen: Terminal): string[] {
  const first = Math.max('head'.length, ...heads.map(({ label }) => label.length))
  const line = (head: string, type: string, strength: string, margin: string, best: string) =>
    `  ${head.padEnd(first)}  ${type.padEnd(14)}  ${strength.padStart(8)}  ${margin.padStart(6)}  ${best}`.trimEnd()
  const lines = heads.map((head) => {
    const { label, type, margin } = head
    const [name, score] = strongest(head)
    const strength = decimals((type === 'mixed' ? score : head.scores[type]).strength)
    const best = type === 'mixed' ? `most like ${named(head, name)}` : type === 'column' ? `of ${columnOf(head)}` : ''
    const text = cut(line(label, type, strength, decimals(margin), best), screen.columns - 1)
    return type === 'mixed' ? screen.dim(text) : text
  })
  const legend = 'Strength: 1 is always there, 0 what a head gets that looks everywhere alike. Margin: to the next name.'
  return [
    '',
    screen.dim(line('head', 'looks at', 'strength', 'margin', '')),
    ...lines,
    '',
    ...wrap(legend, columns(screen)).map(dimmed(screen)),
  ]
}

/** The heat map of a head, what it is called, and every score. */
function oneHead({ attention }: Report, head: HeadPattern, screen: Terminal): string[] {
  const { label, layer, head: index, type, margin, scores } = head
  const line = (name: string, ...cells: string[]) => `  ${name.padEnd(14)}${cells.map((cell) => cell.padStart(9)).join('')}`
  const scoreLine = ([name, { score, null: chance, strength, queries }]: [string, PatternScore]) => {
    const of = name === 'column' && head.column ? `  ${columnOf(head)}` : ''
    const text = cut(
      `${line(name, decimals(score), decimals(chance), decimals(strength), String(queries))}${of}`,
      screen.columns - 1,
    )
    return name === type ? screen.bold(text) : text
  }
  return [
    '',
    `  ${screen.bold(label)}  ${called(head)}; margin ${decimals(margin)}`,
    '',
    ...wrap('Rows are queries, columns the keys that they look at.', columns(screen)).map(dimmed(screen)),
    '',
    ...heatLines(attention.pattern(layer, index, 0), attention.tokens(0), screen),
    '',
    screen.dim(line('', 'score', 'chance', 'strength', 'queries')),
    ...Object.entries(scores).map(scoreLine),
  ]
}

function json({ model, attention, heads, options }: Report): string {
  const tokens = attention.tokens(0)
  const patterns = heads.map((head) => {
    if (options.head === undefined) return head
    const pattern = attention.pattern(head.layer, head.head, 0)
    return { ...head, pattern: tokens.map((_, q) => [...pattern.slice(q).data]) }
  })
  const what = { kind: attention.kind, model: options.model ?? 'demo', family: model.config.family }
  return `${JSON.stringify({ ...what, prompt: { ids: [...attention.ids(0)], tokens }, heads: patterns }, null, 2)}\n`
}

/** Tidy: a line per head and name. */
function scoresCsv({ heads }: Report): string {
  const lines = heads.flatMap((head) =>
    Object.entries(head.scores).map(([name, { score, null: chance, strength, queries }]): Cell[] => {
      return [head.label, head.type, head.margin, name, present(score), present(chance), present(strength), queries]
    }),
  )
  return csvText(['head', 'type', 'margin', 'name', 'score', 'null', 'strength', 'queries'], lines)
}

/** Nothing where no query counted. */
function present(value: number): Cell {
  return Number.isNaN(value) ? undefined : value
}

/** Tidy: a line per head, query and key that the query may look at. */
function patternsCsv({ attention, heads }: Report): string {
  const tokens = attention.tokens(0)
  const lines = heads.flatMap(({ label, layer, head }) => {
    const pattern = attention.pattern(layer, head, 0)
    return tokens.flatMap((query, q) => tokens.slice(0, q + 1).map((key, k): Cell[] => [label, q, query, k, key, pattern.at(q, k)]))
  })
  return csvText(['head', 'query', 'query_token', 'key', 'key_token', 'attention'], lines)
}

async function picture({ attention, heads }: Report): Promise<string> {
  const [head] = heads
  return toSvg(attention.plot(head?.layer ?? 0, head?.head ?? 0, 0))
}
