// Models made in worker threads: terminated in the middle of a run, and loaded by one worker after another.
import { BIG, Model, probe, Run, sleep, TARGET } from './common.mjs'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

const [, , how] = process.argv

async function work() {
  if (workerData?.saved) {
    const model = await Model.demo()
    const run = await Run.load(model, workerData.saved)
    const result = await run.attribute({ answer: ' Mary', against: ' John' })
    parentPort.postMessage(`${result.row(0).value('L3H1').toFixed(3)} ${result.certified}`)
    return model.close()
  }
  const model = await Model.demo()
  parentPort.postMessage(await probe(model))
  if (workerData === 'run') {
    const running = model.attribute(BIG, TARGET, { onProgress: () => {} })
    parentPort.postMessage('running')
    await running
    parentPort.postMessage('ran to its end')
  }
  if (workerData === 'close') await model.close()
}

/** Ten workers, terminated while they run; each at another moment. */
async function terminated() {
  for (let i = 0; i < 10; i++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: 'run' })
    await new Promise((resolve, reject) => {
      worker.on('message', (message) => {
        if (message === 'running') resolve()
        if (message === 'ran to its end') reject(new Error('terminate came too late'))
      })
      worker.on('error', reject)
    })
    await sleep(i * 8)
    await worker.terminate()
  }
  console.log('terminated')
}

/** A worker in the middle of loading. */
async function terminatedEarly() {
  for (let i = 0; i < 10; i++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: 'run' })
    await once(worker, 'online')
    await sleep(i * 6)
    await worker.terminate()
  }
  console.log('terminated')
}

/** Workers that end by themselves, one after another; the main thread never loads the addon. */
async function sequential(end) {
  for (let i = 0; i < 6; i++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: end })
    const [[message], [code]] = await Promise.all([once(worker, 'message'), once(worker, 'exit')])
    console.log(message, code)
  }
}

/** Several at the same time, with the main thread. */
async function parallel() {
  const workers = [1, 2, 3].map(() => new Worker(new URL(import.meta.url), { workerData: 'close' }))
  const model = await Model.demo()
  const seen = await Promise.all([probe(model), ...workers.map(async (worker) => (await once(worker, 'message'))[0])])
  console.log(seen.join(' '))
}

/** A run that this thread saved, read by two workers at once. */
async function saved() {
  const folder = mkdtempSync(join(tmpdir(), 'logit-prism-'))
  try {
    const model = await Model.demo()
    const prompt = 'When Mary and John went to the store, John gave a drink to'
    const run = await model.run([prompt], { cache: model.attributionHooks(), position: 'last' })
    const path = join(folder, 'run.safetensors')
    await run.save(path)
    const workers = [1, 2].map(() => new Worker(new URL(import.meta.url), { workerData: { saved: path } }))
    const seen = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]))
    console.log(seen.join('; '))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

if (!isMainThread) await work()
else {
  if (how === 'terminate') await terminated()
  if (how === 'terminate-early') await terminatedEarly()
  if (how === 'sequential-close') await sequential('close')
  if (how === 'sequential-open') await sequential('open')
  if (how === 'parallel') await parallel()
  if (how === 'saved') await saved()
  if (how.startsWith('terminate')) console.log(await probe(await Model.demo()))
}
