import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  test: { include: ['tests/**/*.test.ts'],
    // A machine that does much else at the same time.
    testTimeout: 60_000,
    // Some speak real HTTP against short silences: a machine that stood still for seconds is no fault of theirs.
    retry: 2,
    pool: 'threads', poolOptions: { threads: { maxThreads: 2 } } },
})
