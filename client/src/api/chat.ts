import type { Receipt, Refusal } from '@/protocol/events'
import type { Picked } from '@/transport/platform'
import { download, get, post, upload } from './client'

/** What a tenant shows before anybody has logged in. */
export interface Front {
  title: string
  slogan: string
  logo_url: string
  primary_color: string
  welcome: string
  suggestions: string[]
  label: string
  models: Model[]
  /** How many files a message may have, and how many bytes a file. */
  attachments: { per_message: number; file_bytes: number }
}

export interface Model {
  slug: string
  name: string
  is_default: boolean
  /** Whether it takes pictures, and text files, with a question. */
  images: boolean
  files: boolean
}

export interface Attachment {
  id: string
  kind: 'image' | 'text'
  name: string
  size: number
  width: number
  height: number
}

export interface Conversation {
  id: string
  title: string
  role: string | null
  is_pinned: boolean
  is_archived: boolean
  created_at: string
  updated_at: string
}

export interface Message {
  id: string
  parent_id: string | null
  model: string
  question: string
  attachments: Attachment[]
  /** What the model thought first; empty where it told nothing. */
  reasoning: string
  answer: string
  state: string
  finish_reason: string
  receipt: Receipt | null
  failure: Refusal | null
  feedback: 'up' | 'down' | null
  created_at: string
  ended_at: string | null
}

export interface Hit {
  message_id: string
  conversation_id: string
  title: string
  place: 'question' | 'answer'
  snippet: string
  asked_at: string
}

export interface Role {
  slug: string
  name: string
  category: { slug: string; name: string } | null
  description: string
  avatar_url: string
  opening: string
  suggestions: string[]
  is_default: boolean
}

export interface Announcement {
  id: string
  source: 'platform' | 'tenant'
  title: string
  body: string
  starts_at: string
  ends_at: string | null
  is_read: boolean
}

export const REPORT_CATEGORIES = [
  'illegal',
  'sexual',
  'violence',
  'minors',
  'hate',
  'privacy',
  'rights',
  'untrue',
  'other',
] as const
export type ReportCategory = (typeof REPORT_CATEGORIES)[number]

export const front = (): Promise<Front> => get('/api/chat/front')
export const conversations = (before?: Conversation): Promise<Conversation[]> =>
  get('/api/chat/conversations', { limit: 40, before: before?.updated_at, before_id: before?.id })
export const changeConversation = (
  id: string,
  change: Partial<Pick<Conversation, 'title' | 'is_pinned' | 'is_archived'>>,
): Promise<Conversation> => post(`/api/chat/conversations/${id}`, change)
export const deleteConversation = (id: string): Promise<null> => post(`/api/chat/conversations/${id}/delete`)
export const conversation = (id: string): Promise<Conversation> => get(`/api/chat/conversations/${id}`)
export const messages = (id: string, before?: Message): Promise<Message[]> =>
  get(`/api/chat/conversations/${id}/messages`, { limit: 50, before: before?.created_at, before_id: before?.id })
export const message = (id: string): Promise<Message> => get(`/api/chat/messages/${id}`)
export const attach = (picked: Picked, progress: (percent: number) => void): Promise<Attachment> =>
  upload('/api/chat/attachments', picked, progress)
export const dropAttachment = (id: string): Promise<null> => post(`/api/chat/attachments/${id}/delete`)
export const attachedText = (id: string): Promise<string> => download(`/api/chat/attachments/${id}`)
export const stop = (id: string): Promise<{ running: boolean }> => post(`/api/chat/messages/${id}/stop`)
export const rate = (id: string, rating: 'up' | 'down' | ''): Promise<unknown> =>
  post(`/api/chat/messages/${id}/feedback`, { rating })
export const report = (id: string, category: ReportCategory, detail: string): Promise<null> =>
  post(`/api/chat/messages/${id}/report`, { category, detail })
export const share = (id: string): Promise<{ url: string; expires_at: string }> =>
  post(`/api/chat/conversations/${id}/share`)
export const search = (q: string, before?: Hit): Promise<Hit[]> =>
  get('/api/chat/search', { q, before: before?.message_id })
export const roles = (): Promise<Role[]> => get('/api/chat/roles')
export const announcements = (): Promise<Announcement[]> => get('/api/chat/announcements')
export const readAnnouncement = (id: string): Promise<null> => post(`/api/chat/announcements/${id}/read`)
export const exportConversation = (id: string): Promise<string> =>
  download(`/api/chat/conversations/${id}/export`, { format: 'md' })
export const exportAll = (): Promise<string> => download('/api/chat/export', { format: 'md' })
