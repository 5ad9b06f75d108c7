// What several test files need: where things lie, the references as label → value, refusals, and the built command line.
import { type SpawnOptions, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished } from 'vitest'
import { type Attribution, type LoadOptions, Model, PrismError, type PrismErrorCode, type Target } from '../src/index.js'

export const ROOT = fileURLToPath(new URL('..', import.meta.url))
export const DEMO = join(ROOT, 'models/demo')
export const DEMO_PROMPT = 'When Mary and John went to the store, John gave a drink to'
export const DEMO_TARGET: Target = { answer: ' Mary', against: ' John' }

/** The directory of a fixture. */
export function fixture(name: string): string {
  return join(ROOT, 'test/fixtures', name)
}

export function readJson<T>(...path: string[]): T {
  return JSON.parse(readFileSync(join(...path), 'utf8')) as T
}

/** One tensor of a safetensors file, read without the addon. */
export interface Stored {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

/** A safetensors file: its tensors, and its metadata as texts. */
export function safetensors(path: string): { readonly tensors: Map<string, Stored>; readonly metadata: Record<string, string> } {
  const bytes = readFileSync(path)
  const from = 8 + Number(bytes.readBigUInt64LE(0))
  const { __metadata__: metadata = {}, ...header } = JSON.parse(bytes.toString('utf8', 8, from)) as Record<string, never>
  const entries = Object.entries(header as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>)
  const numbers = (dtype: string, part: ArrayBuffer): ArrayLike<number> => {
    if (dtype === 'F64') return new Float64Array(part)
    if (dtype === 'F32') return new Float32Array(part)
    if (dtype === 'I32') return new Int32Array(part)
    if (dtype === 'U32') return new Uint32Array(part)
    if (dtype === 'I64') return Array.from(new BigInt64Array(part), Number)
    throw new Error(`${path}: ${dtype}`)
  }
  const tensors = entries.map(
    ([
      name,
      {
        dtype,
        shape,
        data_offsets: [start, end],
      },
    ]): [string, Stored] => {
      const part = Uint8Array.from(bytes.subarray(from + start, from + end)).buffer
      return [name, { dtype, shape, data: Array.from(numbers(dtype, part)) }]
    },
  )
  return { tensors: new Map(tensors), metadata }
}

/** What transformers computed of a checkpoint's finer units: `decompose.safetensors`. */
export class Decomposed {
  readonly #tensors: Map<string, Stored>
  readonly rows: number[]
  readonly states: string[]
  readonly components: string[]
  readonly prompt: number[]
  readonly target: { readonly answer: number; readonly against: number }

  constructor(name: string) {
    const { tensors, metadata } = safetensors(join(fixture(name), 'decompose.safetensors'))
    const json = <T>(key: string) => JSON.parse(metadata[key] ?? 'null') as T
    this.#tensors = tensors
    this.rows = json('rows')
    this.states = json('states')
    this.components = json('components')
    this.prompt = json('prompt')
    this.target = { answer: json('answer'), against: json('against') }
  }

  has(name: string): boolean {
    return this.#tensors.has(name)
  }

  get(name: string): Stored {
    const found = this.#tensors.get(name)
    if (!found) throw new Error(`no ${name} in the reference`)
    return found
  }

  /** What lies at these first indices, flat. */
  at(name: string, ...indices: number[]): number[] {
    const { shape, data } = this.get(name)
    const size = shape.slice(indices.length).reduce((product, n) => product * n, 1)
    const from = indices.reduce((sum, at, axis) => sum * (shape[axis] ?? 0) + at, 0) * size
    return data.slice(from, from + size)
  }
}

/** A model that is closed when the test is over. */
export async function open(directory: string, options: LoadOptions = {}): Promise<Model> {
  const model = await Model.load(directory, options)
  onTestFinished(() => model.close())
  return model
}

/** One row of a fixture's float64 reference. */
export interface ReferenceRow {
  readonly position: number
  readonly embed: number
  readonly pos_embed: number
  readonly head: readonly (readonly number[])[]
  readonly attn_bias: readonly number[]
  readonly mlp: readonly number[]
  readonly constant: number
  readonly logit_difference: number
  readonly total: number
  readonly measured: number
}

/** A reference row as label → value, in the column order of unit `head`. */
export function byHead(row: ReferenceRow): [string, number][] {
  const layer = (heads: readonly number[], l: number): [string, number][] => [
    ...heads.map((value, h): [string, number] => [`L${l}H${h}`, value]),
    [`L${l} attn_bias`, row.attn_bias[l] ?? Number.NaN],
    [`L${l} mlp`, row.mlp[l] ?? Number.NaN],
  ]
  return [['embed', row.embed], ['pos_embed', row.pos_embed], ...row.head.flatMap(layer)]
}

/** The same for unit `layer`: attention is the sum of its heads and its bias. */
export function byLayer(row: ReferenceRow): [string, number][] {
  const layer = (heads: readonly number[], l: number): [string, number][] => [
    [`L${l} attn`, heads.reduce((sum, value) => sum + value, row.attn_bias[l] ?? Number.NaN)],
    [`L${l} mlp`, row.mlp[l] ?? Number.NaN],
  ]
  return [['embed', row.embed], ['pos_embed', row.pos_embed], ...row.head.flatMap(layer)]
}

/** That numbers are the expected ones, within 1e-4 absolute + 1e-4 relative, as README promises. */
export function expectClose(actual: ArrayLike<number>, expected: readonly number[], what = 'value'): void {
  expect(actual.length, `${what}: how many`).toBe(expected.length)
  expected.forEach((value, i) => {
    const off = Math.abs((actual[i] ?? Number.NaN) - value)
    expect(off, `${what}[${i}]: ${actual[i]} for ${value}`).toBeLessThanOrEqual(1e-4 + 1e-4 * Math.abs(value))
  })
}

/** That a row has the columns and the numbers of a reference. */
export function expectRow(result: Attribution, i: number, expected: [string, number][], constant: number, total: number): void {
  expect(result.components.map(({ label }) => label)).toEqual(expected.map(([label]) => label))
  expectClose(
    result.row(i).values,
    expected.map(([, value]) => value),
    `row ${i}`,
  )
  expectClose(
    [result.constant[i] ?? Number.NaN, result.total[i] ?? Number.NaN],
    [constant, total],
    `constant and total of row ${i}`,
  )
}

/** The error that something throws or rejects with; it must be a PrismError of this code. */
export async function refusal(code: PrismErrorCode, work: () => unknown): Promise<PrismError> {
  const outcome = await (async () => work())().then(
    () => 'no error',
    (error: unknown) => error,
  )
  expect(outcome, `expected ${code}`).toBeInstanceOf(PrismError)
  const error = outcome as PrismError
  expect(error.code, error.message).toBe(code)
  return error
}

/** An empty directory that is gone after the test. */
export function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), 'logit-prism-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A directory that is a copy of a fixture, to be spoiled; with a changed config if one is given. */
export function spoiled(name: string, config?: Record<string, unknown>): string {
  const directory = temporary()
  cpSync(name === 'demo' ? DEMO : fixture(name), directory, { recursive: true })
  if (config) {
    const path = join(directory, 'config.json')
    writeFileSync(path, JSON.stringify({ ...readJson<object>(path), ...config }))
  }
  return directory
}

/** Changes the numbers of one f32 tensor of a copied checkpoint, in place. */
export function editTensor(directory: string, name: string, edit: (value: number, i: number) => number): void {
  const path = join(directory, 'model.safetensors')
  const bytes = readFileSync(path)
  const headerLength = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >
  const { dtype, data_offsets: [start, end] } = header[name] ?? { dtype: 'none', data_offsets: [0, 0] } // prettier-ignore
  if (dtype !== 'F32') throw new Error(`${name}: ${dtype}`)
  const from = 8 + headerLength + start
  for (let i = 0; i < (end - start) / 4; i++) bytes.writeFloatLE(edit(bytes.readFloatLE(from + 4 * i), i), from + 4 * i)
  writeFileSync(path, bytes)
}

/** How a child process ended. */
export interface Ended {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end; `during` may act on it. A child that hangs is killed: status null. */
export function run(
  program: string,
  args: string[],
  options: SpawnOptions = {},
  during?: (kill: (signal: NodeJS.Signals) => void) => void,
): Promise<Ended> {
  const child = spawn(program, args, { cwd: ROOT, timeout: 25_000, killSignal: 'SIGKILL', ...options, stdio: 'pipe' })
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []]
  child.stdout?.on('data', (data: Buffer) => stdout.push(data))
  child.stderr?.on('data', (data: Buffer) => stderr.push(data))
  during?.((signal) => child.kill(signal))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status, signal) => {
      resolve({ status, signal, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() })
    })
  })
}

/** Runs node. */
export function node(
  ...[args, ...rest]: [string[], SpawnOptions?, ((kill: (signal: NodeJS.Signals) => void) => void)?]
): Promise<Ended> {
  return run(process.execPath, args, ...rest)
}

/** Runs the built command line as a user would, its output piped. */
export function cli(...args: string[]): Promise<Ended> {
  return node([join(ROOT, 'dist/cli/main.js'), ...args])
}
