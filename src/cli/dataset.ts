// logit-prism dataset: prompts for a task with their corrupted twins, and how well the model does it.
import { type DataItem, type DataOptions, Dataset } from '../data/dataset.js'
import { facts } from '../data/facts.js'
import { greaterThan } from '../data/greater-than.js'
import { induction } from '../data/induction.js'
import { ioi, type IoiCorruption } from '../data/ioi.js'
import type { EvaluatedItem, Evaluation, MeanFigure } from '../evaluate.js'
import type { Model } from '../model.js'
import { field, noteModel, usage } from './ask.js'
import { type Cell, csvText } from './formats.js'
import { type CommonOptions, emit, modelLine, note, openModel, tokenText } from './session.js'
import { signed } from './table.js'
import { screenFor, type Terminal } from './terminal.js'
import { quoted, visible, wrap } from './text.js'

/** The data sets, by the names that the command line has for them. */
export const DATASETS = ['ioi', 'induction', 'facts', 'greater-than'] as const

interface Options extends CommonOptions {
  readonly n?: number
  readonly seed: number
  readonly order?: 'ABBA' | 'BABA' | 'both'
  readonly corruption?: IoiCorruption
  readonly length?: number
  readonly bos?: boolean
  readonly evaluate?: boolean
  readonly top?: number
  readonly format: 'table' | 'json' | 'jsonl' | 'csv'
  readonly out?: string
}

/** What a report is made from. */
interface Report {
  readonly model: Model
  readonly data: Dataset
  readonly clean: Evaluation | undefined
  readonly twins: Evaluation | undefined
  readonly options: Options
}

export async function runDataset(name: (typeof DATASETS)[number], options: Options, signal: AbortSignal): Promise<void> {
  checkTogether(name, options)
  await using model = await openModel(options, signal)
  noteModel(options)
  const data = build(model, name, options)
  const evaluated = (corrupted: boolean) => (options.evaluate ? model.evaluate(data, { corrupted, signal }) : undefined)
  const report = { model, data, clean: await evaluated(false), twins: await evaluated(true), options }
  const render = {
    table: () => table(report, screenFor(options.out)),
    json: () => json(report),
    jsonl: () => jsonl(report),
    csv: () => csv(report),
  }
  const left = data.leftOut.length
  if (left > 0 && (options.format === 'jsonl' || options.format === 'csv')) {
    note(
      options,
      `${left === 1 ? 'one was' : `${left} were`} left out for this tokenizer (--format json lists them): ${counts(data)}`,
    )
  }
  await emit(render[options.format](), options.out)
}

function checkTogether(name: string, { order, corruption, length, top, format }: Options): void {
  if (name !== 'ioi' && (order !== undefined || corruption !== undefined)) throw usage('--order and --corruption are for ioi.')
  if (name !== 'induction' && length !== undefined) throw usage('--length is for induction.')
  if (format !== 'table' && top !== undefined) throw usage(`--top is for the table: --format ${format} holds every item.`)
}

function build(model: Model, name: (typeof DATASETS)[number], { n, seed, order, corruption, length, bos }: Options): Dataset {
  const common: DataOptions = {
    seed,
    ...(n === undefined ? {} : { n }),
    ...(bos === undefined ? {} : { prependBos: bos }),
  }
  const make = {
    ioi: () => ioi(model, { ...common, ...(order && { order }), ...(corruption && { corruption }) }),
    induction: () => induction(model, { ...common, ...(length && { length }) }),
    facts: () => facts(model, undefined, common),
    'greater-than': () => greaterThan(model, common),
  }
  return make[name]()
}

function table({ model, data, clean, twins, options }: Report, screen: Terminal): string {
  const { name, length, seed, source, leftOut, items } = data
  const top = Math.min(options.top ?? 5, length)
  const lines = [
    '',
    ...field('model', modelLine(model, options.model), screen),
    ...field('data', `${name}: ${length} ${length === 1 ? 'item' : 'items'}, seed ${seed}; ${source}`, screen),
    ...(leftOut.length > 0 ? field('left out', `${counts(data)}: not for this tokenizer`, screen) : []),
  ]
  items.slice(0, top).forEach((item, i) => lines.push('', ...itemLines(model, item, i, [clean?.items[i], twins?.items[i]], screen)))
  if (top < length) lines.push('', screen.dim(`  ${length - top} more`))
  if (clean && twins) lines.push(...evaluationTable(clean, twins, screen))
  return `${lines.join('\n')}\n\n`
}

/** How many of which list were left out. */
function counts({ leftOut }: Dataset): string {
  const lists = [...new Set(leftOut.map(({ list }) => list))]
  const text = (n: number, list: string) => `${n} ${n === 1 ? list.replace(/s$/, '') : list}`
  return lists.map((list) => text(leftOut.filter((one) => one.list === list).length, list)).join(', ')
}

/** Prompt, what is asked, twin. */
function itemLines(
  model: Model,
  { text, corruptedText, variant, target }: DataItem,
  i: number,
  [clean, twin]: readonly [EvaluatedItem | undefined, EvaluatedItem | undefined],
  screen: Terminal,
): string[] {
  const room = Math.max(24, screen.columns - 16)
  const block = (name: string, words: string, style: (line: string) => string = String) => {
    return wrap(words, room).map((part, k) => `  ${screen.dim((k === 0 ? name : '').padEnd(11))}  ${style(part)}`)
  }
  const difference = (item: EvaluatedItem | undefined) => (item ? `  (${signed(item.difference).trim()} logits)` : '')
  return [
    ...block(`${i} ${variant}`.slice(0, 11), visible(text)),
    ...block(
      '',
      `→ ${tokensText(model, target.answer)}, not ${tokensText(model, target.against)}${difference(clean)}`,
      screen.bold,
    ),
    ...block('twin', `${visible(corruptedText)}${difference(twin)}`, screen.dim),
  ]
}

/** A token, or the first and the last of several. */
function tokensText(model: Model, ids: number | readonly number[]): string {
  const list = [ids].flat()
  const text = (id: number | undefined) => quoted(tokenText(model, id ?? 0))
  return list.length <= 2 ? list.map(text).join(', ') : `${text(list[0])} … ${text(list.at(-1))} (${list.length} tokens)`
}

/** The means over prompts and over twins, with their intervals: side by side where there is room. */
function evaluationTable(clean: Evaluation, twins: Evaluation, screen: Terminal): string[] {
  const share = (value: number) => `${(value * 100).toFixed(1)} %`
  const logits = (value: number) => signed(value).trim()
  const figure = ({ mean, interval: [low, high] }: MeanFigure, show: (value: number) => string) =>
    `${show(mean).padStart(8)}  ${`[${show(low)}, ${show(high)}]`.replaceAll(' %', '').padEnd(18)}`
  const means = (evaluations: readonly Evaluation[]) => {
    const line = (name: string, cells: readonly string[]) => `  ${name.padEnd(16)}  ${cells.join('  ')}`.trimEnd()
    const figures = (name: string, of: (evaluation: Evaluation) => MeanFigure, show: (value: number) => string) =>
      line(name, evaluations.map((evaluation) => figure(of(evaluation), show))) // prettier-ignore
    const names = evaluations.map(({ corrupted }) => (corrupted ? 'twins' : 'prompts').padStart(8).padEnd(28))
    return [
      '',
      screen.dim(line('', names)),
      figures('above the rival', ({ accuracy }) => accuracy, share),
      figures('likeliest of all', ({ top1 }) => top1, share),
      figures('logit difference', ({ logitDifference }) => logitDifference, logits),
      figures('probability', ({ probability }) => probability, share),
    ]
  }
  const legend = 'Twins are asked for the answer of their prompts. In brackets: 95 % intervals over items.'
  return [
    ...(screen.columns >= 80 ? means([clean, twins]) : [...means([clean]), ...means([twins])]),
    '',
    ...wrap(legend, Math.min(screen.columns, 100) - 4).map((part) => screen.dim(`  ${part}`)),
  ]
}

function json({ data, clean, twins, options }: Report): string {
  const evaluation = clean && twins ? { evaluation: { clean, corrupted: twins } } : {}
  return `${JSON.stringify({ model: options.model ?? 'demo', ...data.toJSON(), ...evaluation }, null, 2)}\n`
}

function jsonl({ data, clean, twins }: Report): string {
  if (!clean || !twins) return data.toJSONL()
  const line = (item: DataItem, i: number) => JSON.stringify({ ...item, clean: clean.items[i], twin: twins.items[i] })
  return data.items.map((item, i) => `${line(item, i)}\n`).join('')
}

/** Tidy: a line per item; ids separated by spaces. */
function csv({ data, clean, twins }: Report): string {
  const positions = Object.keys(data.items[0]?.positions ?? {})
  const figures = clean && twins ? ['difference', 'correct', 'top1', 'probability', 'twin_difference', 'twin_probability'] : []
  const header = ['item', 'variant', 'text', 'corrupted_text', 'prompt', 'corrupted', 'answer', 'against']
  const lines = data.items.map((item, i): Cell[] => [
    i,
    item.variant,
    item.text,
    item.corruptedText,
    ...[item.prompt, item.corrupted, item.target.answer, item.target.against].map((ids) => [ids].flat().join(' ')),
    ...positions.map((name) => item.positions[name]),
    ...measured(clean?.items[i], twins?.items[i]),
  ])
  return csvText([...header, ...positions, ...figures], lines)
}

function measured(clean: EvaluatedItem | undefined, twin: EvaluatedItem | undefined): Cell[] {
  if (!clean || !twin) return []
  const { difference, correct, top1, probability } = clean
  return [difference, Number(correct), Number(top1), probability, twin.difference, twin.probability]
}
