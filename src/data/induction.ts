// Repeated random tokens: what came after a token before comes after it again.
import { invalidArgument } from '../errors.js'
import type { Model } from '../model.js'
import { wholeNumber } from '../options.js'
import { type DataItem, type DataOptions, dataOptions, Dataset } from './dataset.js'

/** Options of {@link induction}. */
export interface InductionOptions extends DataOptions {
  /** Tokens of the sequence that is repeated. Default 25, or what context and vocabulary allow. */
  readonly length?: number
}

/**
 * Random tokens r₁ … r_L, then r₁ … r_{L−1} again: the answer is r_L, its rival another token of the sequence. No token
 * stands in the sequence twice. In the twin the first copy is of other random tokens, so that nothing repeats. Special tokens
 * are not drawn; a BOS token is in front if the config names one. Positions: `END`, the last token, `A`, the same token in
 * the first copy, and `B`, the token behind that, where an induction head looks from `END`.
 *
 * Source: Olsson et al. 2022, "In-context Learning and Induction Heads", arXiv:2209.11895.
 *
 * @throws {PrismError} `INVALID_ARGUMENT` for lengths that context or vocabulary do not allow, `UNKNOWN_OPTION`
 */
export function induction(model: Model, options: InductionOptions = {}): Dataset<'A' | 'B' | 'END'> {
  const { n = 100, seed, prependBos, random } = dataOptions('induction', options, ['length'])
  const { bosToken, nContext, dVocab } = model.config
  if (prependBos && bosToken === null) throw invalidArgument('prependBos', true, 'false: the config names no BOS token')
  const start = bosToken === null || prependBos === false ? [] : [bosToken]
  const special = new Set([...model.specialTokens(), ...start])
  const tokens = Array.from({ length: dVocab }, (_, id) => id).filter((id) => !special.has(id) && id !== bosToken)
  const longest = Math.min(Math.floor((nContext - start.length + 1) / 2), Math.floor(tokens.length / 2))
  if (longest < 3) throw invalidArgument('model', 'one of too few tokens', 'a context and a vocabulary for 3 tokens and 3 others')
  const length = wholeNumber('length', options.length, 3, longest) ?? Math.min(25, longest)
  const textOf = (ids: readonly number[]) => model.tokenizer?.decode(ids) ?? ids.join(',')
  const items = Array.from({ length: n }, (): DataItem<'A' | 'B' | 'END'> => {
    const drawn = random.sample(tokens, 2 * length)
    const [sequence, others] = [drawn.slice(0, length), drawn.slice(length)]
    const again = sequence.slice(0, -1)
    const [prompt, corrupted] = [
      [...start, ...sequence, ...again],
      [...start, ...others, ...again],
    ]
    const [answer, against] = [sequence[length - 1] ?? 0, sequence[random.below(length - 2)] ?? 0]
    const before = start.length + length - 1
    return {
      prompt,
      corrupted,
      text: textOf(prompt),
      corruptedText: textOf(corrupted),
      target: { answer, against },
      positions: { A: before - 1, B: before, END: prompt.length - 1 },
      words: { ANSWER: textOf([answer]), RIVAL: textOf([against]) },
      corruptedWords: {},
      template: 'random tokens, and again',
      variant: `period ${length}`,
    }
  })
  const settings = { n, length, ...(prependBos === undefined ? {} : { prependBos }) }
  return new Dataset({ name: 'induction', source: 'arXiv:2209.11895', seed, settings, leftOut: [] }, items)
}
