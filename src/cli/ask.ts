// What a question on the command line is made of, for every command that asks one: prompt, target, positions; and its head.
import { InvalidArgumentError } from 'commander'
import type { Position, PromptOptions } from '../asked.js'
import type { Model } from '../model.js'
import type { ResolvedTarget, Target } from '../targets.js'
import type { Prompt, Token } from '../tokens.js'
import { type CommonOptions, modelLine, note, tokenText } from './session.js'
import type { Terminal } from './terminal.js'
import { quoted, visible, wrap } from './text.js'

/** Options of commands that run a prompt. */
export interface PromptedOptions extends CommonOptions {
  readonly ids?: boolean
  readonly bos?: boolean
  readonly out?: string
}

/** Options of commands that ask something of a prompt. */
export interface AskOptions extends PromptedOptions {
  readonly answer?: string[]
  readonly against?: string[]
  readonly position: string
  readonly format: 'table' | 'json' | 'csv' | 'arrow' | 'svg'
}

/** What cannot be meant: exit status 2. */
export function usage(message: string): InvalidArgumentError {
  return new InvalidArgumentError(message)
}

/** Text, or ids. */
export function parsePrompt(text: string, { ids }: PromptedOptions): Prompt {
  return ids ? text.split(',').map((id) => parseId('the prompt', id)) : text
}

function parseId(what: string, text: string): number {
  if (/^\s*\d+\s*$/.test(text)) return Number(text)
  throw usage(`with --ids, ${what} is a token id, not '${text}'.`)
}

/** Answer and what it is compared with, if there is an answer. */
export function parseTarget({ answer, against, ids }: AskOptions): Target | undefined {
  const token = (text: string): Token => (ids ? parseId('a token', text) : text)
  const named = (list: string[], name: string) => list.length === 1 && list[0] === `:${name}`
  if (answer === undefined) {
    if (against === undefined) return undefined
    throw usage('--against needs an --answer to compare with.')
  }
  const special = (['next', 'predicted'] as const).find((name) => named(answer, name))
  const minus = against && { against: named(against, 'mean') ? ('mean' as const) : against.map(token) }
  return { answer: special ?? answer.map(token), ...minus }
}

/** Which rows, and whether a BOS token is in front. */
export function parseRows({ position, bos }: AskOptions): Pick<PromptOptions, 'position' | 'prependBos'> {
  return { position: parsePosition(position), ...(bos === undefined ? {} : { prependBos: bos }) }
}

function parsePosition(text: string): Position {
  if (text === 'last' || text === 'all') return text
  if (/^-?\d+(,-?\d+)*$/.test(text)) return text.split(',').map(Number)
  throw usage(`--position is 'last', 'all', or whole numbers separated by commas, not '${text}'.`)
}

/** Says which model was asked where none was named, and what of the prompt it does not know. */
export function noteModel(options: CommonOptions): void {
  if (options.model === undefined) note(options, 'no --model given: this is the bundled demo model, which knows 342 words')
}

/** Says how many pieces of a prompt became the token for unknown ones. */
export function noteUnknown(model: Model, ids: Uint32Array, options: PromptedOptions): void {
  const unknown = ids.filter((id) => id === model.tokenizer?.unknownToken).length
  if (unknown === 0 || options.ids) return
  const words = unknown === 1 ? 'one piece of the prompt is' : `${unknown} pieces of the prompt are`
  note(options, `${words} not in the vocabulary and became ${quoted(tokenText(model, model.tokenizer?.unknownToken ?? 0))}`)
}

/** A target in words: logit(" Mary") − logit(" John"). */
export function targetText(model: Model, target: ResolvedTarget): string {
  if ('direction' in target) return 'a direction'
  const term = (weight: number, of: string, first: boolean) => {
    const size = Math.abs(weight) === 1 ? '' : `${Number(Math.abs(weight).toFixed(3))} · `
    const sign = weight < 0 ? (first ? '−' : ' − ') : first ? '' : ' + '
    return `${sign}${size}${of}`
  }
  const terms = [...target.tokens]
    .sort((a, b) => b.weight - a.weight)
    .map(({ id, weight }) => ({ weight, of: `logit(${quoted(tokenText(model, id))})` }))
  if (target.mean !== 0) terms.push({ weight: target.mean, of: 'mean logit' })
  return terms.map(({ weight, of }, i) => term(weight, of, i === 0)).join('')
}

/** Lines of a named field. */
export function field(name: string, value: string, screen: Terminal, style: (text: string) => string = String): string[] {
  const lines = wrap(value, Math.max(16, screen.columns - 12))
  return lines.map((part, i) => `  ${screen.dim((i === 0 ? name : '').padEnd(8))}  ${style(part)}`)
}

/** The lines above the tables: which model, which prompt. */
export function head(model: Model, path: string | undefined, ids: Uint32Array, screen: Terminal): string[] {
  const text = model.tokenizer?.decode(ids) ?? [...ids].join(',')
  return ['', ...field('model', modelLine(model, path), screen), ...field('prompt', visible(text), screen)]
}

/** The lines above one row's table: behind which token, which target. */
export function rowHead(
  model: Model,
  { position, target }: { readonly position: number; readonly target: ResolvedTarget | undefined },
  ids: Uint32Array,
  screen: Terminal,
): string[] {
  const at = `position ${position}, behind ${quoted(tokenText(model, ids[position] ?? 0))}`
  const asked = target ? field('target', targetText(model, target), screen, screen.bold) : []
  return ['', ...field('at', at, screen), ...asked, '']
}
