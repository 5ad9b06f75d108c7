// Calls that take a while: abortable, with progress, and their errors turned into ours.
import { fromNative, invalidArgument, PrismError } from './errors.js'
import { type Addon, addonOf } from './native.js'

/** How far a call is. */
export interface Progress {
  /** Layers loaded, or prompts done. */
  readonly done: number
  /** Of how many. */
  readonly total: number
}

/** What every long call takes. */
export interface CallOptions {
  /** Stops the call within one layer's time; it rejects with code `ABORTED`, the signal's reason as `cause`. */
  readonly signal?: AbortSignal
  /** Called as the work advances, and once more at the end. What it throws stops the call and rejects it. */
  readonly onProgress?: (progress: Progress) => void
}

/** Names of {@link CallOptions}. */
export const CALL_OPTIONS = ['signal', 'onProgress'] as const

/** That the options are of their kinds. */
export function checkCall({ signal, onProgress }: { readonly signal?: unknown; readonly onProgress?: unknown }): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalidArgument('signal', signal, 'an AbortSignal')
  if (onProgress !== undefined && typeof onProgress !== 'function') throw invalidArgument('onProgress', onProgress, 'a function')
}

type Report = (done: number, total: number) => void

/** Runs a call of `on`, a native object, that can be stopped and reports. */
export function call<T>(on: object, options: CallOptions, start: Start<T>): Promise<T> {
  return callOf(addonOf(on), options, start)
}

type Start<T> = (cancel: InstanceType<Addon['CancelHandle']>, report: Report | undefined) => Promise<T>

/** Runs a call of an addon that can be stopped and reports. */
export async function callOf<T>(addon: Addon, { signal, onProgress }: CallOptions, start: Start<T>): Promise<T> {
  checkCall({ signal, onProgress })
  if (signal?.aborted) throw aborted(signal)

  const cancel = new addon.CancelHandle()
  // a call may wait behind others: the promise settles at once, the work stops when its turn comes
  let abort = () => {}
  const stopped = new Promise<never>((_, reject) => {
    abort = () => {
      cancel.cancel()
      if (signal) reject(aborted(signal))
    }
  })
  stopped.catch(() => {}) // nobody may be waiting any more
  signal?.addEventListener('abort', abort, { once: true })
  let latest = { done: 0, total: 0 }
  let settled = false
  let failure: { error: unknown } | undefined
  const fail = (error: unknown) => {
    failure ??= { error }
    cancel.cancel()
  }
  const report: Report = (done, total) => {
    if (settled || failure) return
    latest = { done, total }
    try {
      const returned: unknown = onProgress?.(latest)
      if (returned instanceof Promise) returned.catch(fail) // an async callback that fails must not end the process
    } catch (error) {
      fail(error)
    }
  }
  try {
    const work = start(cancel, onProgress && report)
    work.catch(() => {}) // it may fail after its caller has gone
    const result = await Promise.race([work, stopped])
    // reports are dropped when they come too fast, and the last may come after the result
    if (latest.done < latest.total) report(latest.total, latest.total)
    if (!failure) return result
  } catch (error) {
    const prism = fromNative(error)
    if (!failure) throw prism.code === 'ABORTED' && signal?.aborted ? aborted(signal) : prism
  } finally {
    settled = true
    signal?.removeEventListener('abort', abort)
    cancel.finish()
  }
  throw failure?.error
}

/** The error of a call that its signal stopped. */
export function aborted(signal: AbortSignal): PrismError {
  return new PrismError('ABORTED', 'aborted', {}, { cause: signal.reason })
}
