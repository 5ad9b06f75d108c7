import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { 'logit-prism': fileURLToPath(new URL('src/index.ts', import.meta.url)) } },
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 30_000,
    typecheck: { enabled: true, include: ['test/types/*.test-d.ts'], tsconfig: 'test/tsconfig.json' },
  },
})
