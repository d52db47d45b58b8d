/** A conversation's messages are a tree: this is the branch of it that is shown. */

import type { Message } from '@/api/chat'

export type Node = Pick<Message, 'id' | 'parent_id' | 'created_at'>

/** Returns the messages from the root to the latest one beneath `through` (or of all), in order. */
export function branch<T extends Node>(messages: readonly T[], through?: string): T[] {
  const byId = new Map(messages.map((one) => [one.id, one]))
  let leaf = latest(through === undefined ? messages : beneath(messages, through))
  const path: T[] = []
  const seen = new Set<string>()
  while (leaf !== undefined && !seen.has(leaf.id)) {
    seen.add(leaf.id)
    path.unshift(leaf)
    leaf = leaf.parent_id === null ? undefined : byId.get(leaf.parent_id)
  }
  return path
}

/** Returns a message's alternatives, itself among them, the oldest first. */
export function alternatives<T extends Node>(messages: readonly T[], one: Node): T[] {
  return messages.filter(({ parent_id }) => parent_id === one.parent_id).sort(byTime)
}

function beneath<T extends Node>(messages: readonly T[], root: string): T[] {
  const inside = new Set([root])
  const sorted = [...messages].sort(byTime)
  for (const one of sorted) if (one.parent_id !== null && inside.has(one.parent_id)) inside.add(one.id)
  return sorted.filter(({ id }) => inside.has(id))
}

function latest<T extends Node>(messages: readonly T[]): T | undefined {
  return [...messages].sort(byTime).pop()
}

function byTime(one: Node, other: Node): number {
  if (one.created_at === other.created_at) return one.id < other.id ? -1 : 1
  return one.created_at < other.created_at ? -1 : 1
}
