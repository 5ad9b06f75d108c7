// How well a model does a task: is the answer above its rival, and by how much.
import { type Choice, Dataset } from './data/dataset.js'
import { Reader } from './data/reader.js'
import { PROMPT_OPTIONS, type PromptOptions } from './asked.js'
import { checkCall } from './calls.js'
import { invalidArgument, PrismError } from './errors.js'
import type { Model } from './model.js'
import { checkKeys, optionalFlag } from './options.js'
import { inStream } from './stream.js'
import { Sums } from './summary.js'
import { nativePrompt, nativeTokens, type Prompt, type Token } from './tokens.js'

/** Options of `model.evaluate`. */
export interface EvaluateOptions extends Omit<PromptOptions, 'position'> {
  /** Of a data set: the twins in place of the prompts, asked the same. Default false. */
  readonly corrupted?: boolean
  /** Seed of the resampling for intervals. Default 0. */
  readonly seed?: number
  /** How often the prompts are drawn anew. Default 1,000. */
  readonly resamples?: number
}

/** A mean over prompts. */
export interface MeanFigure {
  readonly mean: number
  /** Standard deviation over prompts (n − 1; 0 for a single one). */
  readonly std: number
  /** 95 % bootstrap interval of the mean. */
  readonly interval: readonly [low: number, high: number]
}

/** How one prompt was answered. Logits are the model's own, after its cap if it has one. */
export interface EvaluatedItem {
  /** The answer's logit less its rival's; of several tokens each side's mean. */
  readonly difference: number
  /** Whether `difference` is above 0. */
  readonly correct: boolean
  /** Whether the likeliest token of all is the answer, or one of the answers. */
  readonly top1: boolean
  /** The probability of the answer; of several, their sum. */
  readonly probability: number
  /** `probability` less that of the rival; only `probability` with `against: 'mean'`. */
  readonly probabilityDifference: number
  /** The likeliest token. */
  readonly predicted: number
  /** Its text. */
  readonly predictedText: string
}

const FIGURES = ['accuracy', 'top1', 'logitDifference', 'probability', 'probabilityDifference'] as const

/** How well a model answers, in the mean and prompt by prompt. It observes. */
export class Evaluation implements Iterable<EvaluatedItem> {
  /** What it is worth: it observes. */
  readonly kind = 'observed' as const
  /** Whether the twins of a data set were run in place of its prompts. */
  readonly corrupted: boolean
  /** Share of prompts whose answer is above its rival. */
  readonly accuracy: MeanFigure
  /** Share of prompts whose likeliest token is the answer. */
  readonly top1: MeanFigure
  /** Answer less rival, in logits. */
  readonly logitDifference: MeanFigure
  /** Probability of the answer. */
  readonly probability: MeanFigure
  /** Probability of the answer less that of the rival. */
  readonly probabilityDifference: MeanFigure
  /** Prompt by prompt. */
  readonly items: readonly EvaluatedItem[]

  /** @internal */
  constructor(figures: readonly MeanFigure[], items: readonly EvaluatedItem[], corrupted: boolean) {
    const none: MeanFigure = { mean: Number.NaN, std: Number.NaN, interval: [Number.NaN, Number.NaN] }
    const [accuracy = none, top1 = none, logitDifference = none, probability = none, probabilityDifference = none] = figures
    this.accuracy = accuracy
    this.top1 = top1
    this.logitDifference = logitDifference
    this.probability = probability
    this.probabilityDifference = probabilityDifference
    this.items = Object.freeze(items)
    this.corrupted = corrupted
  }

  /** How many prompts. */
  get length(): number {
    return this.items.length
  }

  /** Prompt by prompt. */
  [Symbol.iterator](): Iterator<EvaluatedItem> {
    return this.items[Symbol.iterator]()
  }

  /** Everything, as plain data. */
  toJSON(): Record<string, unknown> {
    const { kind, corrupted, accuracy, top1, logitDifference, probability, probabilityDifference, items } = this
    return { kind, corrupted, accuracy, top1, logitDifference, probability, probabilityDifference, items }
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const line = (name: string, { mean, interval: [low, high] }: MeanFigure) =>
      `  ${name.padEnd(21)} ${mean.toFixed(4).padStart(9)}  [${low.toFixed(4)}, ${high.toFixed(4)}]`
    const head = `Evaluation: ${this.length} ${this.corrupted ? 'twins' : 'prompts'}`
    return [head, ...FIGURES.map((name) => line(name, this[name]))].join('\n')
  }
}

const EVALUATE_OPTIONS = [...PROMPT_OPTIONS.filter((name) => name !== 'position'), 'corrupted', 'seed', 'resamples']
/** Logits that are held at a time. */
const BATCH_LOGITS = 2 ** 22

/** @internal */
export async function evaluate(
  model: Model,
  what: Dataset | readonly Prompt[],
  second: EvaluateOptions | Choice | readonly Choice[],
  third: EvaluateOptions,
): Promise<Evaluation> {
  const options = what instanceof Dataset ? (second as EvaluateOptions) : third
  checkKeys('evaluate', options, EVALUATE_OPTIONS)
  checkCall(options)
  const { seed, resamples, corrupted: flag, onProgress, ...run } = options
  const corrupted = optionalFlag('corrupted', flag) ?? false
  const [prompts, choices] = asked(what, second, corrupted)
  const mean = { ...(seed === undefined ? {} : { seed }), ...(resamples === undefined ? {} : { resamples }) }
  const sums = new Sums(FIGURES.length, mean)
  const size = Math.max(1, Math.min(256, Math.floor(BATCH_LOGITS / model.config.dVocab)))
  const items: EvaluatedItem[] = []
  for (let from = 0; from < prompts.length; from += size) {
    const batch = prompts.slice(from, from + size)
    const sides = batch.map((prompt, i) => resolved(model, prompt, choices(from + i), from + i, options))
    using kept = await model.run(batch, { ...run, logits: 'last', position: 'last' }).catch(shifted(from))
    sides.forEach((side, i) => items.push(answered(model, kept.logits(i).data, side)))
    const numbers = items.slice(from).flatMap(({ correct, top1, difference, probability, probabilityDifference }) => {
      return [Number(correct), Number(top1), difference, probability, probabilityDifference]
    })
    await sums.add(
      Float32Array.from(numbers),
      Uint32Array.from(batch, (_, i) => from + i),
    )
    const failed: unknown = onProgress?.({ done: items.length, total: prompts.length })
    if (failed instanceof Promise) await failed // an async callback that fails must not end the process
  }
  const figures = await sums.finish(FIGURES.map((label) => ({ label })))
  // shares are counts: exact, where running means are rounded
  const share = (of: (item: EvaluatedItem) => boolean) => items.filter(of).length / items.length
  const exact = [share(({ correct }) => correct), share(({ top1 }) => top1)]
  const frozen = figures.map(({ mean: value, std, interval }, i) => Object.freeze({ mean: exact[i] ?? value, std, interval }))
  return new Evaluation(frozen, items, corrupted)
}

/** The prompts, and the choice of each. */
function asked(
  what: Dataset | readonly Prompt[],
  second: EvaluateOptions | Choice | readonly Choice[],
  corrupted: boolean,
): [prompts: readonly Prompt[], choices: (i: number) => unknown] {
  if (what instanceof Dataset) return [corrupted ? what.corrupted : what.prompts, (i) => what.targets[i]]
  if (corrupted) throw invalidArgument('corrupted', corrupted, 'a data set, whose items have twins')
  if (!Array.isArray(what) || what.length === 0) throw invalidArgument('prompts', what, 'a data set, or a list of prompts')
  if (!Array.isArray(second)) return [what, () => second]
  if (second.length === what.length) return [what, (i) => second[i]]
  throw invalidArgument('choices', second, `one choice, or a list with one for each of the ${what.length} prompts`)
}

/** Both sides of a choice as ids; no rival: the mean over the vocabulary. */
interface Sides {
  readonly answer: readonly number[]
  readonly against: readonly number[] | undefined
}

function resolved(model: Model, prompt: Prompt, choice: unknown, i: number, { prependBos }: EvaluateOptions): Sides {
  checkKeys(`choices[${i}]`, choice, ['answer', 'against'])
  const { answer, against } = choice as Partial<Choice>
  if (answer === 'next' || answer === 'predicted')
    throw invalidArgument(`choices[${i}].answer`, answer, 'a token, or a list of tokens')
  const text = nativePrompt(prompt, i)
  const ids = (name: string, tokens: unknown) => {
    const list = nativeTokens(`choices[${i}].${name}`, tokens)
    if (list.length === 0) throw invalidArgument(`choices[${i}].${name}`, list, 'at least one token')
    return list.map((token) => idOf(model, text, token, prependBos))
  }
  return { answer: ids('answer', answer), against: against === 'mean' ? undefined : ids('against', against) }
}

/** A token given as text is resolved where it stands, as targets are: behind a prompt given as text, else alone. */
function idOf(model: Model, prompt: string | Uint32Array, token: Token, prependBos: boolean | undefined): number {
  if (typeof token === 'string') {
    const alone = typeof prompt !== 'string'
    const reader = new Reader(model, 'tokens given as text', alone ? false : prependBos)
    return reader.tokenOrRefused(alone ? '' : prompt, token)
  }
  const { dVocab } = model.config
  if (token < dVocab) return token
  const message = `token id ${token} is outside the vocabulary of ${dVocab} tokens (0 to ${dVocab - 1})`
  throw new PrismError('TOKEN_RANGE', message, { id: token, dVocab })
}

function answered(model: Model, logits: Float32Array, { answer, against }: Sides): EvaluatedItem {
  const logit = (id: number) => logits[id] ?? Number.NaN
  const meanOf = (ids: ArrayLike<number>, of: (id: number) => number) => Array.from(ids, of).reduce((a, b) => a + b, 0) / ids.length
  const predicted = logits.reduce((best, value, id) => (value > logit(best) ? id : best), 0)
  const largest = logit(predicted)
  const total = logits.reduce((sum, value) => sum + Math.exp(value - largest), 0)
  const share = (ids: readonly number[]) => ids.reduce((sum, id) => sum + Math.exp(logit(id) - largest), 0) / total
  const rival = against ? meanOf(against, logit) : logits.reduce((sum, value) => sum + value, 0) / logits.length
  const difference = meanOf(answer, logit) - rival
  const probability = share(answer)
  return Object.freeze({
    difference,
    correct: difference > 0,
    top1: answer.includes(predicted),
    probability,
    probabilityDifference: probability - (against ? share(against) : 0),
    predicted,
    predictedText: model.tokenText(predicted),
  })
}

/** An error of a batch, with the number of the batch's first prompt. */
function shifted(firstPrompt: number): (error: unknown) => never {
  return (error) => {
    throw inStream(error, firstPrompt)
  }
}
