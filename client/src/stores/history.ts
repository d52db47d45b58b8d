/** One's conversations: the list beside the chat, and the search in them. */

import { reactive } from 'vue'
import * as api from '@/api/chat'
import { isLoggedIn, onLeave } from './user'

export const history = reactive<{
  list: api.Conversation[]
  isWhole: boolean
  isLoading: boolean
  /** Whether the list has been asked for at all: before that nothing is said of it. */
  isKnown: boolean
  isSearching: boolean
  query: string
  hits: api.Hit[]
}>({ list: [], isWhole: false, isLoading: false, isKnown: false, isSearching: false, query: '', hits: [] })

onLeave(() => Object.assign(history, { list: [], isWhole: false, isKnown: false, query: '', hits: [] }))

export async function refreshHistory(): Promise<void> {
  if (!isLoggedIn.value) return
  history.list = await api.conversations().finally(() => {
    history.isKnown = true
  })
  history.isWhole = history.list.length < 40
}

export async function moreHistory(): Promise<void> {
  if (history.isWhole || history.isLoading || history.query !== '') return
  history.isLoading = true
  try {
    const more = await api.conversations(history.list[history.list.length - 1])
    history.list.push(...more.filter(({ id }) => !history.list.some((known) => known.id === id)))
    history.isWhole = more.length < 40
  } finally {
    history.isLoading = false
  }
}

let latestSearch = 0

export async function search(query: string): Promise<void> {
  history.query = query.trim()
  latestSearch += 1
  const mine = latestSearch
  history.isSearching = history.query !== ''
  try {
    const hits = history.query === '' ? [] : await api.search(history.query)
    if (mine === latestSearch) history.hits = hits
  } finally {
    if (mine === latestSearch) history.isSearching = false
  }
}

export async function change(
  one: api.Conversation,
  wanted: Partial<Pick<api.Conversation, 'title' | 'is_pinned'>>,
): Promise<void> {
  const changed = await api.changeConversation(one.id, wanted)
  history.list = history.list.map((known) => (known.id === one.id ? changed : known))
}

export async function remove(one: api.Conversation): Promise<void> {
  await api.deleteConversation(one.id)
  history.list = history.list.filter(({ id }) => id !== one.id)
}

export type Group = 'pinned' | 'today' | 'yesterday' | 'week' | 'month' | 'older'

/** Returns the conversations by how long ago they were, pinned ones in front; no group is empty. */
export function groups(list: readonly api.Conversation[], now = new Date()): { name: Group; list: api.Conversation[] }[] {
  const midnight = new Date(now).setHours(0, 0, 0, 0)
  const day = 24 * 60 * 60 * 1000
  const nameOf = (one: api.Conversation): Group => {
    const at = Date.parse(one.updated_at)
    if (one.is_pinned) return 'pinned'
    if (at >= midnight) return 'today'
    if (at >= midnight - day) return 'yesterday'
    if (at >= midnight - 6 * day) return 'week'
    return at >= midnight - 29 * day ? 'month' : 'older'
  }
  const names: Group[] = ['pinned', 'today', 'yesterday', 'week', 'month', 'older']
  return names
    .map((name) => ({ name, list: list.filter((one) => nameOf(one) === name) }))
    .filter((group) => group.list.length > 0)
}

/** Returns a text that was found in pieces, those that were looked for apart; without Markdown's signs, which are no words. */
export function pieces(text: string, query: string): { text: string; isHit: boolean }[] {
  const plain = text.replace(/[*_`#>|~]+/g, ' ').replace(/\s+/g, ' ').trim()
  const words = query.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
  if (words.length === 0) return [{ text: plain, isHit: false }]
  return plain
    .split(new RegExp(`(${words.join('|')})`, 'i'))
    .map((piece, at) => ({ text: piece, isHit: at % 2 === 1 }))
    .filter((piece) => piece.text !== '')
}
