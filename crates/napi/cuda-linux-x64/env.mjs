// What cargo needs to build with the feature `cuda`, as lines for a shell: eval "$(node crates/napi/cuda-linux-x64/env.mjs)"
import { buildEnvironment } from './toolkit.mjs'

for (const [name, value] of Object.entries(buildEnvironment())) console.log(`export ${name}='${value}'`)
