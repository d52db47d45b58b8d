import type { Receipt } from '@/protocol/events'
import type { Asker } from '@/transport/platform'
import { get, post } from './client'

/** Amounts are texts of micro-yuan everywhere. */
export interface Balance {
  cash: string
  gift: string
  pending: string
  available: string
}

export interface Package {
  slug: string
  name: string
  price: string
  credits: string
  bonus: string
  badge: string
  limit_per_user: number
  virtual: boolean
}

export interface Plan {
  slug: string
  name: string
  price: string
  days: number
  badge: string
  limit_per_user: number
  virtual: boolean
  allowances: Allowance[]
}

export interface Allowance {
  quota_group: string
  answers: number
  period: 'day' | 'term'
}

export interface Subscription {
  plan: string
  name: string
  starts_at: string
  ends_at: string
  ended_at: string | null
}

export interface Standing {
  used: number
  limit: number
  reset_at: string | null
}

export interface Quota {
  groups: { quota_group: string; free: Standing | null; plans: (Standing & { name: string; period: 'day' | 'term' })[] }[]
  caps: { measure: string; period: string; used: number | string; limit: number | string; reset_at: string | null }[]
}

export interface WayToPay {
  channel: 'wechat' | 'wechat_virtual' | 'alipay' | 'stripe'
  methods: string[]
  minimum: string
}

export interface Order {
  id: string
  name: string
  price: string
  credits: string
  bonus: string
  channel: string
  method: string
  state: 'pending' | 'paid' | 'closed'
  created_at: string
  expires_at: string
  paid_at: string | null
  refunded: string
}

export interface NewOrder {
  order: Order
  payment: Record<string, string>
}

export interface Movement {
  id: number
  at: string
  account: 'cash' | 'gift'
  kind: string
  title: string
  detail: string
  amount: string
  balance: string
  message_id: string | null
}

export interface ReceiptRow {
  message_id: string
  conversation_id: string | null
  asked_at: string
  receipt: Receipt
}

export interface SignIn {
  done: boolean
  streak: number
  amount: string
  coming: string[]
  reset_at: string
}

export interface Invitation {
  code: string
  link: string
  inviter_amount: string
  invitee_amount: string
  invited: number
  waiting: number
  rewarded: number
  earned: string
  owed: string
  people: { nickname: string; standing: string; invited_at: string }[]
}

export const balance = (): Promise<Balance> => get('/api/billing/balance')
export const packages = (asker: Asker): Promise<Package[]> => get('/api/billing/packages', { ...asker })
export const plans = (asker: Asker): Promise<Plan[]> => get('/api/billing/plans', { ...asker })
export const subscriptions = (): Promise<Subscription[]> => get('/api/billing/subscriptions')
export const quota = (): Promise<Quota> => get('/api/billing/quota')
export const channels = (asker: Asker): Promise<WayToPay[]> => get('/api/billing/channels', { ...asker })
export const order = (
  wanted: { package?: string; plan?: string; channel: string; method: string } & Asker,
): Promise<NewOrder> => post('/api/billing/orders', wanted)
export const orderOf = (id: string): Promise<Order> => get(`/api/billing/orders/${id}`)
export const recheck = (id: string): Promise<Order> => post(`/api/billing/orders/${id}/recheck`)
export const ledger = (before?: Movement): Promise<Movement[]> =>
  get('/api/billing/ledger', { limit: 40, before: before?.id })
export const receipts = (before?: ReceiptRow): Promise<ReceiptRow[]> =>
  get('/api/billing/receipts', { limit: 40, before: before?.asked_at })
export const redeem = (code: string): Promise<{ credited: string; kind: 'cash' | 'gift'; balance: string }> =>
  post('/api/billing/redeem', { code })
export const signIn = (): Promise<SignIn> => get('/api/billing/sign-in')
export const takeSignIn = (device_id: string): Promise<SignIn> => post('/api/billing/sign-in', { device_id })
export const invitation = (device_id: string): Promise<Invitation> => get('/api/billing/invitation', { device_id })
export const acceptInvitation = (code: string, device_id: string): Promise<{ inviter: string }> =>
  post('/api/billing/invitation/accept', { code, device_id })
