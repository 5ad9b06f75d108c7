import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 30_000,
    typecheck: { enabled: true, include: ['test/types/*.test-d.ts'], tsconfig: 'test/tsconfig.json' },
  },
})
