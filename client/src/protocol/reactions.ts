/** What a client does about a refusal, by its code alone: PROTOCOL's table as a function. */

import type { Refusal } from './events'

export const NOT_LOGGED_IN = -1
export const PAYING_HELPS = 101
export const PAYING_DOES_NOT_HELP = 102

export interface Reaction {
  /** `login` and `recharge` open a page; `show` puts the text into the bubble. */
  kind: 'login' | 'recharge' | 'show'
  /** Whether the pending bubble goes, and its question comes back into the composer. */
  takesBack: boolean
  msg: string
  /** When it can be tried again, for 102. */
  resetAt: string | null
}

/**
 * Returns what to do about a refusal. What was already told of the answer stays, whatever the code. Where nothing may be
 * sold (`sells`), no refusal leads to a till: its words are shown, and that is all.
 */
export function reactionTo(refusal: Refusal, hasText: boolean, sells = true): Reaction {
  const { code, msg } = refusal
  const takesBack = !hasText && (code === NOT_LOGGED_IN || (code === PAYING_HELPS && sells))
  const resetAt = code === PAYING_DOES_NOT_HELP ? refusal.reset_at : null
  if (code === NOT_LOGGED_IN) return { kind: 'login', takesBack, msg, resetAt }
  if (code === PAYING_HELPS && sells) return { kind: 'recharge', takesBack, msg, resetAt }
  return { kind: 'show', takesBack, msg, resetAt }
}

/** Where one was when a log-in or a payment came between, by whose it is and the conversation's id, or "new". */
export type Detour = { at: 'nowhere' } | { at: 'login' | 'recharge'; owner: string; place: string }

/** Returns the detour after a refusal, which leads away from a place, or not. */
export function detour(now: Detour, { kind }: Reaction, owner: string, place: string): Detour {
  return kind === 'show' ? now : { at: kind, owner, place }
}

/** Returns the detour after somebody came back (`owner`; nobody, where there was no log-in), and the place they go on at. */
export function comeBack(now: Detour, owner: string | undefined): { now: Detour; place?: string } {
  if (now.at === 'nowhere' || owner === undefined) return { now }
  // What one left is another's way to nowhere.
  return { now: { at: 'nowhere' }, place: now.owner === owner ? now.place : undefined }
}
