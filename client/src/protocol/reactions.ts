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

/** Where an interrupted question stands: it is kept while its user logs in or pays, and comes back once. */
export type Detour =
  | { at: 'nowhere' }
  | { at: 'login' | 'recharge'; unsent: string }
  | { at: 'back'; unsent: string }

/** Returns the detour after what happened: a refusal begins one, coming back ends it, and its text is taken once. */
export function detour(
  now: Detour,
  step: { did: 'refused'; reaction: Reaction; question: string } | { did: 'returned' } | { did: 'taken' },
): Detour {
  switch (step.did) {
    case 'refused':
      return step.reaction.kind === 'show'
        ? now
        : { at: step.reaction.kind, unsent: step.reaction.takesBack ? step.question : '' }
    case 'returned':
      return now.at === 'login' || now.at === 'recharge' ? { at: 'back', unsent: now.unsent } : now
    case 'taken':
      return { at: 'nowhere' }
  }
}
