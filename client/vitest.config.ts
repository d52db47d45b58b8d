import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  test: { include: ['tests/**/*.test.ts'],
    // A machine that does much else at the same time.
    testTimeout: 60_000,
    pool: 'threads', poolOptions: { threads: { maxThreads: 2 } } },
})
