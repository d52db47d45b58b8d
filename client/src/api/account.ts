import type { Picked } from '@/transport/platform'
import { download, get, post, upload } from './client'

export type Method = 'wechat' | 'wechat_h5' | 'phone_code' | 'email_code' | 'email_password' | 'password' | 'guest'
export type CodeChannel = 'phone' | 'email'

export interface Methods {
  methods: Method[]
  register: boolean
  code_digits: number
  code_seconds: number
  resend_seconds: number
  captcha: { provider: string; site_key: string } | null
}

export interface User {
  id: number
  username: string | null
  phone: string | null
  email: string | null
  nickname: string
  language: string
  is_guest: boolean
  /** A path of the server's; anybody who knows it may load the picture. */
  avatar_url: string | null
}

export interface LoggedIn {
  token: string
  user: User
}

/** What shows that it is you: the password, or a code that went to your own phone or address. */
export interface Proof {
  password?: string
  proof_channel?: CodeChannel
  proof_code?: string
}

export interface Identity {
  id: string
  kind: 'phone' | 'email' | 'username' | 'wechat'
  shown: string
  since: string | null
}

export interface Identities {
  identities: Identity[]
  ways_in: number
  has_password: boolean
}

export interface Sent {
  expires_at: string
  resend_at: string
}

export interface Departure {
  cash: string
  gift: string
  plans: string[]
  waits_for: string[]
}

export interface Login {
  id: number
  label: string
  device: string
  created_at: string
  expires_at: string
  is_current: boolean
}

export const methods = (): Promise<Methods> => get('/api/auth/methods')
export const me = (): Promise<User> => get('/api/auth/me')
export const changeMe = (change: { nickname?: string; language?: string }): Promise<User> =>
  post('/api/auth/me', change)
export const changeAvatar = (picked: Picked, progress: (percent: number) => void): Promise<User> =>
  upload('/api/auth/avatar', picked, progress)
export const removeAvatar = (): Promise<User> => post('/api/auth/avatar/delete')
export const guest = (): Promise<LoggedIn> => post('/api/auth/guest')
export const login = (identifier: string, password: string, captcha: string): Promise<LoggedIn> =>
  post('/api/auth/login', { identifier, password, captcha })
export const register = (username: string, password: string, language: string): Promise<LoggedIn> =>
  post('/api/auth/register', { username, password, language })
export const sendCode = (
  channel: CodeChannel,
  to: string,
  purpose: 'sign_in' | 'reset',
  captcha: string,
): Promise<Sent> => post('/api/auth/code', { channel, to, purpose, captcha })
export const identities = (): Promise<Identities> => get('/api/auth/identities')
export const sendAccountCode = (channel: CodeChannel, purpose: 'bind' | 'confirm', to = ''): Promise<Sent> =>
  post('/api/auth/identities/code', { channel, purpose, to })
export const bind = (channel: CodeChannel, to: string, code: string, proof: Proof): Promise<Identities> =>
  post('/api/auth/identities/bind', { channel, to, code, ...proof })
export const bindWeChat = (code: string, appid: string): Promise<Identities> =>
  post('/api/auth/identities/bind/wechat', { code, appid })
export const bindWeChatPage = (): Promise<Identities> => post('/api/auth/identities/bind/wechat-h5')
export const unbind = (id: string, proof: Proof): Promise<Identities> => post(`/api/auth/identities/${id}/unbind`, proof)
export const setPassword = (new_password: string, proof: Proof): Promise<Identities> =>
  post('/api/auth/password', { new_password, ...proof })
export const loginWithCode = (channel: CodeChannel, to: string, code: string, captcha: string): Promise<LoggedIn> =>
  post('/api/auth/code/login', { channel, to, code, captcha })
export const resetPassword = (
  channel: CodeChannel,
  to: string,
  code: string,
  password: string,
  captcha: string,
): Promise<LoggedIn> => post('/api/auth/password/reset', { channel, to, code, password, captcha })
export const loginWithWeChat = (code: string, appid: string): Promise<LoggedIn> =>
  post('/api/auth/wechat', { code, appid })
export const finishWeChatPage = (): Promise<LoggedIn> => post('/api/auth/wechat/h5/finish')
export const logout = (): Promise<null> => post('/api/auth/logout')
export const sessions = (): Promise<Login[]> => get('/api/auth/sessions')
export const endSession = (id: number): Promise<unknown> => post(`/api/auth/sessions/${id}/revoke`)
export const endOtherSessions = (): Promise<unknown> => post('/api/auth/sessions/revoke-others')
export const archive = (): Promise<string> => download('/api/auth/account/archive')
export const departure = (): Promise<Departure> => get('/api/auth/account/deletion')
export const leave = (proof: Proof, forfeit: boolean): Promise<{ number: number }> =>
  post('/api/auth/account/delete', { ...proof, forfeit })
