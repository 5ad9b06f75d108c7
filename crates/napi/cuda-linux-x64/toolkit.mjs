// CUDA's toolkit without an installer: NVIDIA's own wheels, unpacked under target/, and a folder of links that has the
// shape which build scripts expect of CUDA_HOME.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stubSource } from './stub.mjs'

/** What compiles (nvcc, its headers and libraries), then what is linked against. 1.2 GB unpacked. */
const WHEELS = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-cccl==13.0.85',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cublas==13.0.2.14',
  'nvidia-curand==10.4.0.35',
  'nvidia-cuda-nvrtc==13.0.88',
]

/** The repository. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const cache = join(root, 'target/cuda-toolkit')
const unpacked = join(cache, 'wheels')
const cu13 = join(unpacked, 'nvidia/cu13')

/** What the addon is linked against and, on a machine without a driver, tested with. */
export const stubFolder = join(cache, 'stub')
/** Where libcublas.so.13 and the others lie. */
export const libraryFolder = join(cu13, 'lib')

function run(command, args) {
  const { error, status } = spawnSync(command, args, { stdio: ['ignore', process.stderr, process.stderr] })
  if (error || status !== 0) throw new Error(`${command} failed${error ? `: ${error.message}` : ''}`)
}

/** The wheels, once; a change of versions unpacks anew. */
function fetch() {
  const stamp = join(cache, 'versions')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === WHEELS.join('\n')) return
  rmSync(unpacked, { recursive: true, force: true })
  console.error('logit-prism: fetching the CUDA 13.0 toolkit with pip (1.2 GB unpacked, once)')
  const options = ['--no-deps', '--only-binary=:all:', '--platform', 'manylinux_2_27_x86_64', '--platform']
  options.push('manylinux2014_x86_64', '--platform', 'manylinux_2_17_x86_64', '--target', unpacked)
  run('python3', ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...options, ...WHEELS])
  writeFileSync(stamp, WHEELS.join('\n'))
}

/** A driver library that exports every function of cuda.h and finds no device. */
function buildStub() {
  mkdirSync(stubFolder, { recursive: true })
  const source = join(stubFolder, 'cuda.c')
  writeFileSync(source, stubSource(readFileSync(join(cu13, 'include/cuda.h'), 'utf8')))
  const library = join(stubFolder, 'libcuda.so.1')
  run(process.env.CC ?? 'cc', ['-shared', '-fPIC', '-Wl,-soname,libcuda.so.1', '-o', library, source])
}

/** Links: bin, include, nvvm, and the libraries under the names that a linker looks for. */
function link(home) {
  rmSync(home, { recursive: true, force: true })
  mkdirSync(join(home, 'lib64'), { recursive: true })
  for (const folder of ['bin', 'include', 'nvvm']) symlinkSync(join(cu13, folder), join(home, folder))
  for (const file of readdirSync(libraryFolder).filter((name) => /\.so\.|\.a$/.test(name))) {
    symlinkSync(join(libraryFolder, file), join(home, 'lib64', file.replace(/\.so\..*/, '.so')))
  }
  symlinkSync(join(stubFolder, 'libcuda.so.1'), join(home, 'lib64/libcuda.so'))
}

/** The toolkit's CUDA_HOME, made if it is not there. */
function toolkit() {
  mkdirSync(cache, { recursive: true })
  fetch()
  buildStub()
  const home = join(cache, 'home')
  link(home)
  return home
}

/** What build scripts of the feature `cuda` read, and where what they build finds CUDA's libraries. */
export function buildEnvironment() {
  const home = toolkit()
  return {
    CUDA_HOME: home,
    // what the kernels are compiled for; the driver compiles them anew for GPUs that are newer
    CUDA_COMPUTE_CAP: '80',
    CUDAFORGE_THREADS: process.env.CUDAFORGE_THREADS ?? String(availableParallelism()),
    PATH: [join(home, 'bin'), process.env.PATH].join(delimiter),
    LD_LIBRARY_PATH: [libraryFolder, process.env.LD_LIBRARY_PATH].filter(Boolean).join(delimiter),
  }
}
