/** How long it is until something may be asked for again: the seconds on a button, which outlive its sheet. */

import { reactive } from 'vue'
import { Refused } from '@/api/client'

/** A clock that is wrong by more than this says nothing about how long to wait. */
const LONGEST = 600

const clock = reactive({ now: Date.now() })
const ends = reactive(new Map<string, number>())
let timer: ReturnType<typeof setInterval> | undefined

/** Returns the seconds that are left, 0 where nothing is waited for. */
export function secondsLeft(what: string): number {
  const end = ends.get(what)
  return end === undefined ? 0 : Math.max(0, Math.ceil((end - clock.now) / 1000))
}

/** Begins to wait. The device's own clock goes on in the background, so the end is kept and not a count. */
export function waitFor(what: string, seconds: number): void {
  clock.now = Date.now()
  ends.set(what, clock.now + seconds * 1000)
  timer ??= setInterval(tick, 1000)
}

/** Returns the seconds from now to a moment of the server's; `otherwise` where the two clocks do not agree. */
export function secondsUntil(iso: string | null, otherwise: number, now = Date.now()): number {
  const seconds = Math.ceil((Date.parse(iso ?? '') - now) / 1000)
  return seconds > 0 && seconds <= LONGEST ? seconds : otherwise
}

/** Waits as long as a refusal says, where one came too early. */
export function waitAsTold(what: string, failure: unknown): void {
  if (failure instanceof Refused && failure.refusal.reset_at !== null) {
    const seconds = secondsUntil(failure.refusal.reset_at, 0)
    if (seconds > 0) waitFor(what, seconds)
  }
}

function tick(): void {
  clock.now = Date.now()
  for (const [what, end] of [...ends]) if (end <= clock.now) ends.delete(what)
  if (ends.size > 0) return
  clearInterval(timer)
  timer = undefined
}
