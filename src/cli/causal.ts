// What became of the target without each component: columns beside its attribution, and who took over.
import { readFileSync } from 'node:fs'
import type { AblateOptions } from '../ablate.js'
import type { AttributeOptions, AttributionRow } from '../attribution.js'
import type { Causal, Effect } from '../causal.js'
import { PrismError } from '../errors.js'
import type { Model } from '../model.js'
import type { Target } from '../targets.js'
import type { Prompt } from '../tokens.js'
import { parsePrompt, type PromptedOptions, usage } from './ask.js'
import { type Cell, csvText } from './formats.js'
import { certificate, percent, remainder, signed } from './table.js'
import type { Terminal } from './terminal.js'
import { wrap } from './text.js'

/** Options of the causal check. */
export interface CausalOptions extends PromptedOptions {
  readonly causal?: boolean
  readonly set?: 'zero' | 'mean'
  readonly reference?: string
  readonly ablateAt?: 'row' | 'all'
}

/** A sweep, and how long it took. */
export interface Checked {
  readonly causal: Causal
  readonly seconds: number
}

/** That options of the causal check come with it, and fit it. */
export function checkCausal(
  options: CausalOptions & { readonly unit: string; readonly norm: string; readonly convention: string; readonly format: string },
): void {
  const { causal, set, reference, ablateAt } = options
  const without = Object.entries({ set, reference, 'ablate-at': ablateAt }).find(([, value]) => value !== undefined)
  if (!causal && without) throw usage(`--${without[0]} is of --causal: add that.`)
  if (!causal) return
  if (options.unit === 'neuron') throw usage('--causal ablates heads or layers: leave --unit neuron out.')
  if (options.norm === 'none') throw usage('--causal explains the logit itself: leave --norm none out.')
  if (options.convention !== 'default') throw usage('--causal is of heads with their value bias: leave --convention out.')
  if (options.format === 'svg') throw usage('--format svg has no picture of --causal: leave it out.')
  if ((set === 'mean') !== (reference !== undefined)) {
    throw usage('--set mean needs --reference FILE, one prompt per line, and only that does.')
  }
}

/** Ablates every component of the unit, one at a time. */
export async function check(
  model: Model,
  prompt: Prompt,
  target: Target,
  rows: Pick<AttributeOptions, 'position' | 'prependBos' | 'signal'>,
  options: CausalOptions & { readonly unit: 'layer' | 'head' | 'neuron' },
): Promise<Checked> {
  const { unit, reference, ablateAt = 'row' } = options
  const set: AblateOptions['set'] = reference === undefined ? 'zero' : { mean: readReference(reference, options) }
  const from = performance.now()
  const causal = await model.ablate([prompt], target, { ...rows, unit: unit === 'layer' ? unit : 'head', set, ablateAt })
  return { causal, seconds: (performance.now() - from) / 1000 }
}

function readReference(path: string, options: CausalOptions): Prompt[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const reason = (error as Error).message
    throw new PrismError('IO_ERROR', `cannot read ${path}: ${reason}`, { path, operation: 'read', reason }, { cause: error })
  }
  const lines = text.split(/\r?\n/).filter((line) => line !== '')
  return lines.map((line) => parsePrompt(line, options))
}

/** The k components with the largest effect, direct or total: an indirect one writes little and matters. */
export function largestEffects({ causal }: Checked, i: number, k: number): Effect[] {
  const size = ({ direct, total }: Effect) => Math.max(Math.abs(direct), Math.abs(total))
  const effects = causal.row(i).byTotal(causal.ablated.length)
  return effects.sort((a, b) => size(b) - size(a)).slice(0, k)
}

/** Lines of the k components with the largest effect: attribution, total effect, verdict, and who took over. */
export function causalTable(
  checked: Checked,
  { row, i, k, certified }: { readonly row: AttributionRow; readonly i: number; readonly k: number; readonly certified: boolean },
  screen: Terminal,
): string[] {
  const effects = largestEffects(checked, i, k)
  const all = row.byMagnitude(row.components.length)
  const shares = effects.map(({ label }) => all.find((share) => share.label === label) ?? { label, value: 0, share: 0 })
  const rest = remainder(row, shares)
  const longest = Math.max(...effects.map(({ label }) => label.length), rest?.label.length ?? 0, 'component'.length)
  const verdicts = Math.max('verdict'.length, ...effects.map(({ verdict }) => verdict.length))
  const left = screen.columns - longest - verdicts - 26
  // the share makes room for names first
  const share = left >= 9 + 24 ? (of: number) => `  ${percent(of)}` : () => ''
  const room = left - share(0).length
  const line = (label: string, value: number, of: number, behind: string) =>
    `  ${label.padEnd(longest)}  ${signed(value)}${share(of)}${behind}`.trimEnd()
  const lines = effects.map((effect, n) => {
    const { value, share: of } = shares[n] ?? { value: 0, share: 0 }
    const behind = `  ${signed(effect.total)}  ${coloured(effect, verdicts, screen)}  ${screen.dim(through(effect, room))}`
    return line(effect.label, value, of, behind)
  })
  const header = `  ${'component'.padEnd(longest)}  ${'logits'.padStart(8)}${share(0) && `  ${'share'.padStart(7)}`}  ${'total'.padStart(8)}  ${'verdict'.padEnd(verdicts)}${room >= 9 ? '  through' : ''}`
  return [
    screen.dim(header),
    ...lines,
    ...(rest ? [screen.dim(line(rest.label, rest.value, rest.share, ''))] : []),
    ...certificate(row, longest, certified, screen),
    '',
    ...wrap(told(checked), screen.columns - 4).map((part) => screen.dim(`  ${part}`)),
  ]
}

/** What was done, in words. */
export function told({ causal, seconds }: Checked): string {
  const { set, ablateAt } = causal.method
  const by = set === 'zero' ? 'zero' : 'its mean over the reference'
  const where = ablateAt === 'row' ? 'at this position' : 'at every position'
  const n = `${causal.ablated.length} components`
  const what = `Ablation of ${n} in ${seconds.toFixed(2)} s: each was replaced by ${by}, alone, ${where}, and everything behind it computed again.`
  const legend =
    ' total: how much the target falls without it; through: the part of others in that, + where they fall with it, − where they take over.'
  return (
    what + legend + (ablateAt === 'row' ? ' Verdicts are about its part at this position; --ablate-at all tells of others.' : '')
  )
}

/** The largest mediators, as many as there is room for, and the norm where it is among them. */
function through(effect: Effect, room: number): string {
  let line = ''
  for (const { label, value } of mediators(effect)) {
    const text = `${label} ${signed(value, 2).trim()}`
    const longer = line === '' ? text : `${line}, ${text}`
    if (longer.length > room) break
    line = longer
  }
  return line
}

/** Through whom: components and the norm, largest first; what is less than 5 % of the larger effect says nothing. */
function mediators(effect: Effect) {
  const { direct, total, throughNorm } = effect
  const least = 0.05 * Math.max(Math.abs(direct), Math.abs(total))
  const all = [...effect.mediators, { label: 'norm', value: throughNorm }].filter(
    ({ value }) => Math.abs(value) >= least && value !== 0,
  )
  return all.sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
}

function coloured({ verdict }: Effect, cells: number, screen: Terminal): string {
  const text = verdict.padEnd(cells)
  if (verdict === 'erased' || verdict === 'repaired' || verdict === 'reversed') return screen.red(text)
  return verdict === 'confirmed' || verdict === 'amplified' ? screen.green(text) : text
}

/** How it was made, for JSON. */
export function causalJson({ causal, seconds }: Checked) {
  return { ...causal.method, components: causal.ablated.length, certified: causal.certified, seconds }
}

/** What the ablation of a component did, for JSON; the label stands beside it. */
export function effectJson({ causal }: Checked, i: number, label: string): Omit<Effect, 'label'> {
  const { label: _, ...effect } = causal.row(i).get(label)
  return effect
}

/** A line per row and component: its attribution in the clean run, and what its ablation did. */
export function causalCsv({ causal }: Checked): string {
  const names = ['value', 'direct', 'total', 'through_norm', 'verdict', 'through']
  const lines = Array.from(causal, (row, i) =>
    causal.ablated.map(({ label, kind, layer, index }): Cell[] => {
      const effect = row.get(label)
      const column = causal.components.findIndex((component) => component.label === label)
      const value = causal.attributions[i * causal.components.length + column]
      const shares = mediators(effect).map((mediator) => `${mediator.label} ${mediator.value}`)
      const numbers = [value, effect.direct, effect.total, effect.throughNorm, effect.verdict, shares.slice(0, 3).join('; ')]
      return [row.prompt, row.position, label, kind, layer, index, ...numbers]
    }),
  )
  return csvText(['prompt', 'position', 'component', 'kind', 'layer', 'index', ...names], lines.flat())
}
