// What every command does first and last: open the model, and put the output where it is wanted.
import { open, rename, rm } from 'node:fs/promises'
import type { Device, Dtype } from '../device.js'
import { PrismError } from '../errors.js'
import { Model } from '../model.js'
import { terminal } from './terminal.js'

/** Options of every command. */
export interface CommonOptions {
  readonly model?: string
  readonly device?: Device | 'auto' | 'cuda'
  readonly dtype?: Dtype
  readonly threads?: number
  readonly quiet?: boolean
  readonly allowUnknownConfig?: boolean
  readonly allowCustomRegex?: boolean
}

/** Loads the model of a command, with a bar on stderr where somebody looks; says when it is the demo. */
export async function openModel(options: CommonOptions, signal: AbortSignal): Promise<Model> {
  const screen = terminal(process.stderr)
  const loud = !options.quiet && screen.interactive
  const how = {
    signal,
    allowUnknownConfig: options.allowUnknownConfig ?? false,
    allowCustomRegex: options.allowCustomRegex ?? false,
    ...(options.device === undefined ? {} : { device: options.device }),
    ...(options.dtype === undefined ? {} : { dtype: options.dtype }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(loud ? { onProgress: ({ done, total }: { done: number; total: number }) => progressLine(done, total) } : {}),
  }
  const load = async () => {
    try {
      return await (options.model === undefined ? Model.demo(how) : Model.load(options.model, how))
    } finally {
      if (loud) process.stderr.write('\r\x1b[K')
    }
  }
  const model = await load()
  if (options.device === 'auto') note(options, `on ${model.device}: ${model.deviceReason}`)
  return model
}

function progressLine(done: number, total: number): void {
  const width = 24
  const filled = Math.round((done / total) * width)
  process.stderr.write(`\rloading ${'█'.repeat(filled)}${'░'.repeat(width - filled)} layer ${done} of ${total}`)
}

/** A line on stderr, unless the user wants quiet. */
export function note(options: CommonOptions, text: string): void {
  if (!options.quiet) process.stderr.write(`${text}\n`)
}

/** Writes to the terminal, or to a file that appears whole or not at all. */
export async function emit(content: string | Uint8Array, out: string | undefined): Promise<void> {
  if (out === undefined) {
    process.stdout.write(content)
    return
  }
  const temporary = `${out}.${process.pid}.tmp`
  try {
    const file = await open(temporary, 'wx')
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, out)
  } catch (error) {
    await rm(temporary, { force: true })
    const reason = (error as Error).message
    throw new PrismError('IO_ERROR', `cannot write ${out}: ${reason}`, { path: out, operation: 'write', reason }, { cause: error })
  }
}

/** One line about a model. */
export function modelLine(model: Model, path: string | undefined): string {
  const { family, nLayers, nHeads, dModel } = model.config
  return `${path ?? 'the bundled demo model'} (${family}, ${nLayers} layers, ${nHeads} heads, d_model ${dModel})`
}

/** The text of a token, or its id where there is no tokenizer. */
export function tokenText(model: Model, id: number): string {
  return model.tokenText(id)
}
