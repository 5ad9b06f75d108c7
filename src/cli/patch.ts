// logit-prism patch: which place of the model carries the difference between two prompts.
import type { Model } from '../model.js'
import type { PatchAxis, PatchPoint } from '../patch.js'
import type { Patched, PatchMatrix } from '../patched.js'
import { toSvg } from '../plot.js'
import type { ResolvedTarget, Target } from '../targets.js'
import type { Prompt } from '../tokens.js'
import { type AskOptions, field, noteModel, noteUnknown, parsePrompt, parseRows, parseTarget, targetText, usage } from './ask.js'
import { csvText } from './formats.js'
import { gridLines } from './grid.js'
import { emit, modelLine, openModel, tokenText } from './session.js'
import { signed } from './table.js'
import { screenFor, type Terminal } from './terminal.js'
import { quoted, visible, wrap } from './text.js'

/** The ways to go over a model, by the names that the command line has for them. */
export const OVER: Readonly<Record<string, readonly PatchAxis[]>> = {
  'layer,position': ['layer', 'position'],
  layer: ['layer'],
  head: ['head'],
  'head,position': ['head', 'position'],
}

/** The places that can be patched. */
export const PLACES: readonly PatchPoint[] = ['resid_pre', 'attn_out', 'mlp_out', 'z']

/** Heads of which every position is shown: those that move the answer most. */
const HEADS = 24

interface Options extends Omit<AskOptions, 'format'> {
  readonly corrupt?: string
  readonly at?: PatchPoint
  readonly over: string
  readonly noising?: boolean
  readonly positions?: string
  readonly corruptPositions?: string
  readonly format: 'table' | 'json' | 'csv' | 'html' | 'svg'
}

/** What a report is made from. */
interface Report {
  readonly model: Model
  readonly patched: Patched
  readonly options: Options
}

export async function runPatch(text: string, options: Options, signal: AbortSignal): Promise<void> {
  const asked = question(text, options)
  const over = OVER[options.over] ?? []
  const at = options.at ?? (over.includes('head') ? 'z' : 'resid_pre')
  if (over.includes('head') && at !== 'z') throw usage(`--over ${options.over} is for --at z: ${at} has no heads.`)
  const listed = (name: 'positions' | 'corruptPositions', option: string) =>
    options[name] === undefined ? {} : { [name]: positionList(options[name], option) }
  const spots = { ...listed('positions', '--positions'), ...listed('corruptPositions', '--corrupt-positions') }
  await using model = await openModel(options, signal)
  noteModel(options)
  const direction = options.noising ? 'noising' : 'denoising'
  const settings = { at, over, direction, ...spots, ...asked.rows, signal } as const
  const patched = await model.patch([asked.clean], [asked.corrupt], asked.target, settings)
  noteUnknown(model, patched.ids(0), options)
  const report = { model, patched, options }
  const render = {
    table: () => table(report, screenFor(options.out)),
    json: () => `${JSON.stringify({ model: options.model ?? 'demo', ...patched.toJSON() }, null, 2)}\n`,
    csv: () => csv(report),
    html: () => html(report),
    svg: () => toSvg(patched.plot()),
  }
  await emit(await render[options.format](), options.out)
}

/** What is asked of which two prompts. */
function question(text: string, options: Options) {
  const { corrupt } = options
  if (corrupt === undefined) throw usage('--corrupt PROMPT is the prompt to compare with: name one.')
  const ask = { ...options, format: 'table' as const }
  const prompts: [Prompt, Prompt] = [parsePrompt(text, ask), parsePrompt(corrupt, ask)]
  const target = parseTarget(ask) as Target // main.ts asks for an answer
  const { position, ...rest } = parseRows(ask)
  const one = Array.isArray(position) && position.length === 1 ? (position[0] as number) : position
  if (one !== 'last' && typeof one !== 'number')
    throw usage("--position is 'last' or one position: one number is read of each prompt.")
  return { clean: prompts[0], corrupt: prompts[1], target, rows: { position: one, ...rest } }
}

function positionList(text: string, option: string): number[] {
  if (/^-?\d+(,-?\d+)*$/.test(text)) return text.split(',').map(Number)
  throw usage(`${option} is whole numbers separated by commas, not '${text}'.`)
}

function table({ model, patched, options }: Report, screen: Terminal): string {
  const { method } = patched
  const isNoising = options.noising === true
  const prompt = (ids: Uint32Array) => visible(model.tokenizer?.decode(ids) ?? [...ids].join(','))
  const logits = (value: number | undefined) => `${signed(value ?? Number.NaN).trim()} logits`
  const position = patched.rows.position[0] ?? 0
  const at = method.change === 'patch' ? method.at : ''
  const what = isNoising ? `corrupted ${at} into the clean run` : `clean ${at} into the corrupted run`
  const lines = [
    '',
    ...field('model', modelLine(model, options.model), screen),
    ...field('clean', `${prompt(patched.ids(0))}  (${logits(patched.clean[0])})`, screen),
    ...field('corrupt', `${prompt(patched.corruptIds(0))}  (${logits(patched.corrupt[0])})`, screen),
    ...field('at', `position ${position}, behind ${quoted(tokenText(model, patched.ids(0)[position] ?? 0))}`, screen),
    ...field('target', targetText(model, patched.targets[0] as ResolvedTarget), screen, screen.bold),
    ...field('patched', what, screen),
    '',
    ...grid(patched, screen),
    '',
  ]
  const legend =
    patched.undefinedPairs.length === 0
      ? isNoising
        ? 'In % of the way from the clean run (0) to the corrupted one (100).'
        : 'In % of the way from the corrupted run (0) to the clean one (100).'
      : `Both runs give the same target, so there is no share of a difference: what every patch moves it by, in logits.`
  lines.push(...wrap(legend, Math.min(screen.columns, 100) - 4).map((part) => screen.dim(`  ${part}`)))
  return `${lines.join('\n')}\n\n`
}

/** Positions down and layers across; or layers down and heads across; or heads down, positions across. */
function grid(patched: Patched, screen: Terminal): string[] {
  const over = patched.method.change === 'patch' ? patched.method.over : []
  const matrix = patched.matrix(0)
  const [byHead, byPosition] = [over.includes('head'), over.includes('position')]
  const shown = numbers(patched, matrix)
  const look = { full: shown.full, text: shown.text }
  if (byPosition && !byHead) {
    const rows = patched.positions(0).clean.map((p) => `${String(p).padStart(3)} ${quoted(patched.tokens(0)[p] ?? '', 14)}`)
    const values = rows.map((_, j) => shown.values.map((row) => row[j] ?? Number.NaN))
    return gridLines({ rows, columns: matrix.rows, values, ...look }, screen)
  }
  if (!byPosition) {
    return gridLines({ rows: matrix.rows, columns: byHead ? matrix.columns : ['all'], values: shown.values, ...look }, screen)
  }
  const strength = shown.moved.map((row) => Math.max(...row.map(Math.abs)))
  const order = Array.from(strength, (_, i) => i).sort((a, b) => (strength[b] ?? 0) - (strength[a] ?? 0))
  const kept = order.slice(0, HEADS).sort((a, b) => a - b)
  const pick = <T>(list: readonly T[]) => kept.map((i) => list[i] as T)
  const columns = patched.positions(0).clean.map(String)
  const lines = gridLines({ rows: pick(matrix.rows), columns, values: pick(shown.values), ...look }, screen)
  const left = matrix.rows.length - kept.length
  return left > 0 ? [...lines, screen.dim(`  ${left} more heads move it less`)] : lines
}

/** What is shown of every patch: percent of the way from the run that was patched, or what it moves by where there is no way. */
function numbers(patched: Patched, { values, normalised }: PatchMatrix) {
  const fromCorrupt = patched.method.change === 'patch' && patched.method.direction === 'denoising'
  const base = (fromCorrupt ? patched.corrupt : patched.clean)[0] ?? 0
  const moved = values.map((row) => row.map((value) => value - base))
  if (normalised) {
    const way = normalised.map((row) => row.map((value) => (fromCorrupt ? value : 1 - value)))
    return { values: way, moved, full: 1, text: (value: number) => minus(String(Math.round(value * 100))) }
  }
  const full = Math.max(1e-9, ...moved.flat().map(Math.abs))
  return { values: moved, moved, full, text: (value: number) => minus(value.toFixed(2)) }
}

/** A number with a minus sign, as elsewhere; zero has none. */
function minus(number: string): string {
  return number.replace(/^-/, Number(number) === 0 ? '' : '−')
}

/** Tidy: a line per patch. */
function csv({ patched }: Report): string {
  const { rows, columns, values, normalised } = patched.matrix(0)
  const lines = rows.flatMap((row, i) => columns.map((column, j) => [row, column, values[i]?.[j], normalised?.[i]?.[j]]))
  return csvText(['row', 'column', 'value', 'normalised'], lines)
}

/** A page that needs nothing else: what was asked, and the picture. */
async function html({ model, patched }: Report): Promise<string> {
  const text = (value: string) => value.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
  const prompt = (ids: Uint32Array) => text(model.tokenizer?.decode(ids) ?? [...ids].join(','))
  const line = (name: string, ids: Uint32Array, f: number | undefined) =>
    `<p><b>${name}</b> ${prompt(ids)} <i>(${signed(f ?? Number.NaN).trim()} logits)</i></p>`
  return [
    '<!doctype html>',
    '<html lang="en"><meta charset="utf-8"><title>Patching</title>',
    '<body style="font-family: sans-serif">',
    line('clean', patched.ids(0), patched.clean[0]),
    line('corrupted', patched.corruptIds(0), patched.corrupt[0]),
    `<p><b>target</b> ${text(targetText(model, patched.targets[0] as ResolvedTarget))}</p>`,
    await toSvg(patched.plot()),
    '</body></html>\n',
  ].join('\n')
}
