import { expectTypeOf, test } from 'vitest'
import {
  type Choice,
  type DataItem,
  type DataOptions,
  type Dataset,
  type EvaluatedItem,
  type EvaluateOptions,
  type Evaluation,
  type Fact,
  facts,
  greaterThan,
  type GreaterThanOptions,
  type IdChoice,
  induction,
  type InductionOptions,
  ioi,
  type IoiCorruption,
  type IoiOptions,
  type LeftOut,
  type MeanFigure,
  type Model,
  type Prompt,
  type PromptOptions,
  type Target,
} from '../../src/index.js'

test('every data set names its own positions', () => {
  expectTypeOf(ioi).toEqualTypeOf<(model: Model, options?: IoiOptions) => Dataset<'IO' | 'S1' | 'S2' | 'END'>>()
  expectTypeOf(induction).toEqualTypeOf<(model: Model, options?: InductionOptions) => Dataset<'A' | 'B' | 'END'>>()
  expectTypeOf(facts).toEqualTypeOf<
    (model: Model, list?: readonly Fact[], options?: DataOptions) => Dataset<'SUBJECT_FIRST' | 'SUBJECT' | 'END'>
  >()
  expectTypeOf(greaterThan).toEqualTypeOf<(model: Model, options?: GreaterThanOptions) => Dataset<'NOUN' | 'XX' | 'YY' | 'END'>>()
  const data = {} as Dataset<'IO' | 'END'>
  expectTypeOf(data.positions).toEqualTypeOf<(name: 'IO' | 'END') => number[][]>()
  // @ts-expect-error: no such position
  const other = () => data.positions('SUBJECT')
  void other
})

test('options', () => {
  expectTypeOf<keyof DataOptions>().toEqualTypeOf<'n' | 'seed' | 'prependBos'>()
  expectTypeOf<keyof IoiOptions>().toEqualTypeOf<
    keyof DataOptions | 'order' | 'corruption' | 'names' | 'places' | 'objects' | 'templates'
  >()
  expectTypeOf<keyof InductionOptions>().toEqualTypeOf<keyof DataOptions | 'length'>()
  expectTypeOf<keyof GreaterThanOptions>().toEqualTypeOf<keyof DataOptions | 'nouns'>()
  expectTypeOf<IoiCorruption>().toEqualTypeOf<
    'ABC' | 'IO-random' | 'S1-random' | 'S2-random' | 'S-random' | 'IO-S1-swap' | 'S2-IO'
  >()
  // @ts-expect-error: misspelt
  void ({ name: ['Mary'] } satisfies IoiOptions)
})

test('items are prompts, targets and positions that every call takes', () => {
  expectTypeOf<DataItem['prompt']>().toExtend<Prompt>()
  expectTypeOf<DataItem['corrupted']>().toExtend<Prompt>()
  expectTypeOf<IdChoice>().toExtend<Target>()
  expectTypeOf<Choice>().toExtend<Target>()
  expectTypeOf<DataItem<'IO'>['positions']>().toEqualTypeOf<Readonly<Record<'IO', number>>>()
  expectTypeOf<Dataset>().toExtend<Iterable<DataItem>>()
  expectTypeOf<Dataset['leftOut']>().toEqualTypeOf<readonly LeftOut[]>()
  expectTypeOf<Dataset['prompts']>().toExtend<readonly Prompt[]>()
  expectTypeOf<Dataset['targets']>().toExtend<readonly Target[]>()
  const item = {} as DataItem
  // @ts-expect-error: read only
  item.prompt[0] = 3
})

test('evaluate: a data set, or prompts and choices', () => {
  const model = {} as Model
  const data = {} as Dataset<'END'>
  expectTypeOf(() => model.evaluate(data, { corrupted: true })).returns.resolves.toEqualTypeOf<Evaluation>()
  expectTypeOf(() => model.evaluate(['a'], { answer: ' b', against: 'mean' })).returns.resolves.toEqualTypeOf<Evaluation>()
  expectTypeOf(() =>
    model.evaluate(['a'], [{ answer: [1, 2], against: [3] }], { seed: 1 }),
  ).returns.resolves.toEqualTypeOf<Evaluation>()
  // @ts-expect-error: prompts need choices
  const alone = () => model.evaluate(['a'])
  // @ts-expect-error: no rival
  const rivalless = () => model.evaluate(['a'], { answer: ' b' })
  void alone
  void rivalless
  expectTypeOf<keyof EvaluateOptions>().toEqualTypeOf<
    Exclude<keyof PromptOptions, 'position'> | 'corrupted' | 'seed' | 'resamples'
  >()
  expectTypeOf<Evaluation['accuracy' | 'top1' | 'logitDifference' | 'probability']>().toEqualTypeOf<MeanFigure>()
  expectTypeOf<Evaluation['kind']>().toEqualTypeOf<'observed'>()
  expectTypeOf<Evaluation>().toExtend<Iterable<EvaluatedItem>>()
})
