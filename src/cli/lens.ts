// logit-prism lens: what the unembedding reads from the residual stream before and after every sublayer.
import { after, type LensState, type LogitLens, type PredictedToken, type Standing } from '../lens.js'
import type { Model } from '../model.js'
import { toSvg } from '../plot.js'
import type { ResolvedTarget } from '../targets.js'
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
import { arrowFile, type Cell, csvText, refuseTerminal } from './formats.js'
import { emit, openModel, tokenText } from './session.js'
import { agreement, percent, signed } from './table.js'
import { screenFor, type Terminal } from './terminal.js'
import { fill, quoted, width, wrap } from './text.js'

interface Options extends AskOptions {
  readonly norm: 'recomputed' | 'frozen'
  readonly top: number
}

/** What a report is made from. */
interface Report {
  readonly model: Model
  readonly lens: LogitLens
  readonly options: Options
}

export async function runLens(text: string, options: Options, signal: AbortSignal): Promise<void> {
  const prompt = parsePrompt(text, options)
  const targets = parseTarget(options)
  const rows = { ...parseRows(options), signal }
  refuseTerminal(options)
  if (options.format === 'arrow' && !targets) throw usage('--format arrow holds the values of an --answer: name one.')
  await using model = await openModel(options, signal)
  noteModel(options)
  const top = Math.min(options.top, model.config.dVocab)
  const lens = await model.logitLens([prompt], { ...rows, norm: options.norm, top, ...(targets ? { targets } : {}) })
  noteUnknown(model, lens.ids(0), options)
  const report = { model, lens, options }
  const render = {
    table: () => table(report, screenFor(options.out)),
    json: () => json(report),
    csv: () => csv(report),
    arrow: async () => arrowFile(await lens.toArrow()),
    svg: () => toSvg(lens.plot()),
  }
  await emit(await render[options.format](), options.out)
}

/** How the answers stand at a state: the best rank among them, and their probabilities together. */
function standing(tokens: readonly Standing[], target: ResolvedTarget | undefined) {
  const answers = new Set(target && 'tokens' in target ? target.tokens.filter(({ weight }) => weight > 0).map(({ id }) => id) : [])
  const of = tokens.filter(({ id }) => answers.has(id))
  return {
    rank: Math.min(...of.map(({ rank }) => rank)),
    probability: of.reduce((sum, { probability }) => sum + probability, 0),
    n: of.length,
  }
}

function table({ model, lens, options }: Report, screen: Terminal): string {
  const ids = lens.ids(0)
  const lines = head(model, options.model, ids, screen)
  Array.from(lens, (states, i) => {
    const [position = 0, target] = [lens.rows.position[i], lens.targets[i]]
    lines.push(...rowHead(model, { position, target }, ids, screen), ...rowTable({ model, lens, options }, states, i, screen))
  })
  const answers = Math.max(0, ...lens.targets.map((target) => standing(lens.row(0)[0]?.tokens ?? [], target).n))
  const norm = options.norm === 'recomputed' ? 'computed anew on every line' : 'held at its scale of the run'
  const legend = [
    `Every line reads the stream as it is after that component; the final norm is ${norm}.`,
    ...(answers > 0 ? ['Rank 0 is the prediction.'] : []),
    ...(answers > 0 && model.config.logitCap !== null ? ['Logits are before the cap, probabilities after it.'] : []),
    ...(answers > 1 ? ['Rank: of the best of the answers; prob.: of all of them.'] : []),
  ]
  lines.push('', ...wrap(legend.join(' '), Math.min(screen.columns, 100) - 4).map((part) => screen.dim(`  ${part}`)))
  return `${lines.join('\n')}\n\n`
}

function rowTable({ lens }: Report, states: LensState[], i: number, screen: Terminal): string[] {
  const target = lens.targets[i]
  const first = Math.max('after'.length, ...states.map((state) => after(state.at, lens.states).length))
  const columns = target ? `${'logits'.padStart(8)}  ${'rank'.padStart(6)}  ${'prob.'.padStart(7)}  ` : ''
  const left = Math.min(screen.columns, 140) - first - columns.length - 4
  const room = target && left < 18 ? 0 : left // a narrow terminal shows the numbers alone
  const line = (state: LensState) => {
    const { rank, probability: p } = standing(state.tokens ?? [], target)
    const numbers = target ? `${signed(state.value ?? Number.NaN)}  ${String(rank).padStart(6)}  ${likelihood(p)}  ` : ''
    const predicted = room > 0 ? list(state.top ?? [], room, screen) : ''
    return `  ${after(state.at, lens.states).padEnd(first)}  ${numbers}${predicted}`.trimEnd()
  }
  const lines = [
    screen.dim(`  ${'after'.padEnd(first)}  ${columns}${room > 0 ? 'most likely' : ''}`.trimEnd()),
    ...states.map(line),
  ]
  if (!target) return lines
  const measured = lens.measured[i] ?? Number.NaN
  const off = (states.at(-1)?.value ?? Number.NaN) - measured
  const note = agreement(off, lens.tolerance[i] ?? Number.NaN, screen.columns - 24)
  return [
    ...lines,
    screen.dim(`  ${'─'.repeat(first + 10)}`),
    `  ${fill('measured', first)}  ${signed(measured)}  ${screen.green(note)}`,
  ]
}

/** A probability, seven characters wide: as a percentage where one decimal shows something of it. */
function likelihood(p: number): string {
  return p >= 0.0005 || p === 0 ? percent(p) : p.toExponential(0).padStart(7)
}

/** As many of the likeliest tokens as fit, the first of them bold. */
function list(tokens: readonly PredictedToken[], room: number, screen: Terminal): string {
  const texts = tokens.map(
    ({ text, probability: p }) => `${quoted(text, Math.max(2, Math.min(16, room - 10)))} ${likelihood(p).trim()}`,
  )
  let [used, n] = [width(texts[0] ?? ''), 1]
  while (n < texts.length && used + 2 + width(texts[n] ?? '') <= room) used += 2 + width(texts[n++] ?? '')
  return [screen.bold(texts[0] ?? ''), ...texts.slice(1, n)].join('  ')
}

function json({ model, lens, options }: Report): string {
  const ids = [...lens.ids(0)]
  const rows = Array.from(lens, (states, i) => {
    const position = lens.rows.position[i] ?? 0
    const target = lens.targets[i]
    return {
      position,
      token: tokenText(model, ids[position] ?? 0),
      ...(target
        ? { target, targetText: targetText(model, target), measured: lens.measured[i], tolerance: lens.tolerance[i] }
        : {}),
      states,
    }
  })
  const what = { kind: lens.kind, model: options.model ?? 'demo', norm: lens.norm }
  const prompt = { ids, tokens: ids.map((id) => tokenText(model, id)) }
  return `${JSON.stringify({ ...what, prompt, rows }, null, 2)}\n`
}

/** Tidy: for every row and state the target's value, each of its tokens, and the likeliest tokens. */
function csv({ lens }: Report): string {
  const lines: Cell[][] = []
  Array.from(lens, (states, i) => {
    for (const { at, value, tokens, top } of states) {
      const add = (kind: string, ...cells: Cell[]) => lines.push([lens.rows.prompt[i], lens.rows.position[i], at, kind, ...cells])
      if (value !== undefined) add('target', undefined, undefined, value, undefined, undefined)
      for (const { id, text, logit, rank, probability } of tokens ?? []) add('token', id, text, logit, rank, probability)
      top?.forEach(({ id, text, logit, probability }, rank) => add('top', id, text, logit, rank, probability))
    }
  })
  return csvText(['prompt', 'position', 'state', 'kind', 'id', 'token', 'logit', 'rank', 'probability'], lines)
}
