#!/usr/bin/env node
// The command line. Exit status: 0 done, 1 refused with a coded error, 2 wrong usage, 130 interrupted.
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { readFileSync } from 'node:fs'
import { CORRUPTIONS } from '../data/ioi.js'
import { PrismError } from '../errors.js'
import { runAttention } from './attention.js'
import { runAttribute } from './attribute.js'
import { DATASETS, runDataset } from './dataset.js'
import { runDemo } from './demo.js'
import { runHeads } from './heads.js'
import { runInfo } from './info.js'
import { runLens } from './lens.js'
import { OVER, PLACES, runPatch } from './patch.js'
import { terminal } from './terminal.js'

/** Stopped by Ctrl-C. */
const interrupt = new AbortController()

function program(): Command {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
  const root = new Command('logit-prism')
    .description('Direct logit attribution: which heads and MLPs of a transformer decide an answer')
    .version(version)
    .exitOverride()
    .showHelpAfterError('(--help tells what there is)')
    .configureHelp({ showGlobalOptions: true })

  question(root.command('attribute'), 12)
    .description('which components add to the logit of an answer')
    .addOption(new Option('--unit <unit>', 'what the rows of the table are').choices(['layer', 'head', 'neuron']).default('head'))
    .addOption(new Option('--norm <norm>', 'the final norm').choices(['frozen', 'none']).default('frozen'))
    .addOption(
      new Option('--convention <name>', 'where value biases count: in the heads, or as TransformerLens has it in attn_bias')
        .choices(['default', 'transformerlens'])
        .default('default'),
    )
    .option('--sources <heads>', 'which tokens these heads moved from: L9H6, or several separated by commas')
    .option('--tokens', 'which tokens each component of the table raises and lowers most')
    .option('--causal', 'ablate every component besides: how much the answer falls without it, and who takes over')
    .addOption(
      new Option('--set <value>', 'what takes its place; mean needs --reference (default: zero)').choices(['zero', 'mean']),
    )
    .option('--reference <file>', 'the prompts that --set mean is over, one per line')
    .addOption(
      new Option('--ablate-at <where>', 'at the position of the table, or at every position (default: row)').choices([
        'row',
        'all',
      ]),
    )
    .addHelpText('after', ATTRIBUTE_EXAMPLE)
    .action((prompt, options, command: Command) => {
      // not commander's own requiredOption: that would come before the nearest name for a misspelt one
      if (options.answer === undefined) command.error("error: required option '--answer <token>' not specified")
      return runAttribute(prompt, options, interrupt.signal)
    })

  question(root.command('lens'), 5)
    .description('the logit lens: what the model would say at every depth')
    .addOption(
      new Option('--norm <norm>', 'the final norm: anew at every depth, or at its scale of the run')
        .choices(['recomputed', 'frozen'])
        .default('recomputed'),
    )
    .addHelpText('after', LENS_EXAMPLE)
    .action((prompt, options) => runLens(prompt, options, interrupt.signal))

  prompted(root.command('attention'))
    .description('where heads look, and what that is called')
    .option('--head <head>', 'show the pattern of this head, L5H1; repeat it for several (default: a table of all heads)', collect)
    .addOption(formatOption(['table', 'json', 'csv', 'svg']))
    .addHelpText('after', ATTENTION_EXAMPLE)
    .action((prompt, options) => runAttention(prompt, options, interrupt.signal))

  target(prompted(root.command('heads')))
    .description('the heads that add most, in both halves: where they look and what they move')
    .option('--top <k>', 'heads, of largest |attribution|', wholeNumber, 5)
    .option('--tokens <k>', 'tokens, sources and partners listed of each', wholeNumber, 3)
    .option('--no-composition', 'leave out which heads compose, which takes longest on large models')
    .addOption(formatOption(['table', 'json']))
    .addHelpText('after', HEADS_EXAMPLE)
    .action((prompt, options, command: Command) => {
      if (options.answer === undefined) command.error("error: required option '--answer <token>' not specified")
      return runHeads(prompt, options, interrupt.signal)
    })

  target(prompted(root.command('patch')))
    .description('which place of the model carries the difference between two prompts')
    .option('--corrupt <prompt>', 'the other prompt, of as many tokens unless --positions are named')
    .addOption(new Option('--at <place>', 'what is patched (default: resid_pre; over heads z)').choices([...PLACES]))
    .addOption(new Option('--over <axes>', 'what is patched one at a time').choices(Object.keys(OVER)).default('layer,position'))
    .option('--noising', 'put the corrupted values into the clean run, not the clean ones into the corrupted run')
    .option('--positions <list>', 'positions that are patched, separated by commas (default: all)')
    .option('--corrupt-positions <list>', 'those of the other prompt that belong to them (default: the same)')
    .addOption(formatOption(['table', 'json', 'csv', 'html', 'svg']))
    .addHelpText('after', PATCH_EXAMPLE)
    .action((prompt, options, command: Command) => {
      if (options.answer === undefined) command.error("error: required option '--answer <token>' not specified")
      return runPatch(prompt, options, interrupt.signal)
    })

  common(root.command('dataset'))
    .description('prompts for a task with corrupted twins, and how well the model does it')
    .addArgument(new Argument('<name>', 'which').choices([...DATASETS]))
    .option('--n <n>', 'how many items (default: 100; all facts)', wholeNumber)
    .option('--seed <seed>', 'seed of what is drawn', fromZero, 0)
    .addOption(
      new Option('--order <order>', 'ioi: which name comes first (default: both in turn)').choices(['ABBA', 'BABA', 'both']),
    )
    .addOption(new Option('--corruption <name>', 'ioi: the twins (default: ABC, three random names)').choices([...CORRUPTIONS]))
    .option('--length <n>', 'induction: tokens that are repeated', wholeNumber)
    .option('--bos', 'put a BOS token in front of the prompts, whatever the tokenizer does')
    .option('--no-bos', 'leave it out')
    .option('--evaluate', 'run prompts and twins: accuracy and logit difference')
    .option('--top <k>', 'items that the table shows (default: 5)', wholeNumber)
    .addOption(formatOption(['table', 'json', 'jsonl', 'csv']))
    .option('--out <file>', 'write there instead of to the terminal')
    .addHelpText('after', DATASET_EXAMPLE)
    .action((name, options) => runDataset(name, options, interrupt.signal))

  common(root.command('info'))
    .description('what a model is and what it decomposes into')
    .addOption(formatOption(['table', 'json']))
    .option('--out <file>', 'write there instead of to the terminal')
    .action((options) => runInfo(options, interrupt.signal))

  common(root.command('demo'))
    .description('a tour on the bundled model')
    .action((options) => runDemo(options, interrupt.signal))
  return root
}

const DEMO_QUESTION = `"When Mary and John went to the store, John gave a drink to" --answer " Mary" --against " John"`

const ATTRIBUTE_EXAMPLE = `
With --unit neuron, --top neurons of each sign are kept, in every format, and
the others are one number; --top all keeps them all.
--format csv and arrow hold one table: of the effects with --causal, of the
sources with --sources, of the tokens with --tokens, else of the components.
--format svg is a picture: a heat map, bars with --unit neuron, the sources of
one row with --sources.

Example:
  logit-prism attribute ${DEMO_QUESTION}`

const LENS_EXAMPLE = `
Example:
  logit-prism lens ${DEMO_QUESTION}`

const ATTENTION_EXAMPLE = `
--format csv holds the scores of all heads, or with --head the patterns;
--format svg is a picture of one head.

Example:
  logit-prism attention "Rome kite doctor lamp Rome kite doctor" --head L1H1`

const HEADS_EXAMPLE = `
Example:
  logit-prism heads ${DEMO_QUESTION}`

const PATCH_EXAMPLE = `
Example:
  logit-prism patch ${DEMO_QUESTION} \\
    --corrupt "When Mary and John went to the store, Mary gave a drink to"`

const DATASET_EXAMPLE = `
ioi           who of two names gets the thing (Wang et al. 2022)
induction     random tokens, repeated (Olsson et al. 2022)
facts         capitals, languages, landmarks, continents
greater-than  a later year, for tokenizers that split years in two (Hanna et al. 2023)

Words that the tokenizer does not have as one token are left out, and said.

Example:
  logit-prism dataset ioi --n 200 --seed 1 --evaluate`

/** Options of commands that run a prompt. */
function prompted(command: Command): Command {
  return common(command)
    .argument('<prompt>', 'text; with --ids token ids, separated by commas')
    .option('--ids', 'prompt and tokens are ids, not text')
    .option('--bos', 'put a BOS token in front of the prompt, whatever the tokenizer does')
    .option('--no-bos', 'leave it out')
    .option('--out <file>', 'write there instead of to the terminal')
}

/** Options of commands that ask something of a prompt. */
function question(command: Command, top: number): Command {
  const what =
    command.name() === 'lens' ? 'tokens that are listed at every depth, likeliest first' : 'rows of the table, largest first'
  return target(prompted(command))
    .option('--top <k>', what, command.name() === 'lens' ? wholeNumber : numberOrAll, top)
    .addOption(formatOption(['table', 'json', 'csv', 'arrow', 'svg']))
}

/** What is asked, and where. */
function target(command: Command): Command {
  return command
    .option(
      '--answer <token>',
      'a token as it follows the prompt (often with a space in front: " Mary"), :predicted or :next; repeat it for a mean',
      collect,
    )
    .option('--against <token>', 'a token to compare with, or :mean, the mean over the vocabulary; repeat it for a mean', collect)
    .option('--position <position>', "'last', 'all', or positions separated by commas; negative ones count from the end", 'last')
}

function common(command: Command): Command {
  const named =
    command.name() === 'demo'
      ? command
      : command.option(
          '--model <dir>',
          'a checkpoint directory, or a repository id in the local Hugging Face cache; the bundled demo model if not given',
        )
  const trusting = command.name() === 'demo' ? named : trust(named)
  return trusting
    .option('--device <device>', "'cpu', 'cuda' or 'cuda:N' (an NVIDIA GPU), or 'auto': a GPU that works, else the CPU", deviceName)
    .addOption(new Option('--dtype <dtype>', 'what a GPU holds weights and multiplies in').choices(['f32', 'bf16', 'f16']))
    .option('--threads <n>', 'threads to compute on', wholeNumber)
    .option('--quiet', 'no progress and no notes on stderr')
}

function trust(command: Command): Command {
  return command
    .option('--allow-unknown-config', 'accept config keys that nobody here knows')
    .option('--allow-custom-regex', 'accept tokenizer patterns that are not on the list of known ones')
}

function formatOption(formats: string[]): Option {
  return new Option('--format <format>', 'what is printed').choices(formats).default('table')
}

function collect(value: string, earlier: string[] = []): string[] {
  return [...earlier, value]
}

function deviceName(text: string): string {
  if (!/^(cpu|auto|cuda(:\d{1,4})?)$/.test(text)) throw new InvalidArgumentError("It is 'cpu', 'cuda', 'cuda:N' or 'auto'.")
  return text
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) < 1) throw new InvalidArgumentError('It is a whole number from 1 on.')
  return Number(text)
}

function fromZero(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It is a whole number from 0 on.')
  return Number(text)
}

function numberOrAll(text: string): number {
  return text === 'all' ? Number.POSITIVE_INFINITY : wholeNumber(text)
}

async function main(): Promise<number> {
  try {
    await program().parseAsync()
    return 0
  } catch (error) {
    if (error instanceof InvalidArgumentError) process.stderr.write(`error: ${error.message}\n`) // found after parsing, so not printed yet
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (interrupt.signal.aborted) return 130
    const { red, bold } = terminal(process.stderr)
    if (!(error instanceof PrismError)) throw error
    process.stderr.write(`${bold(red('error'))} ${error.code}: ${error.message}\n`)
    return 1
  }
}

process.on('SIGINT', () => {
  if (interrupt.signal.aborted) process.exit(130) // the second time nobody waits
  interrupt.abort()
})
// a reader that closes early (head, less) is no error
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))
process.exitCode = await main()
