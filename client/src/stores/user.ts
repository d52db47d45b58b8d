/** Who is logged in on this device, and what they can spend. */

import { computed, reactive } from 'vue'
import * as account from '@/api/account'
import { addressOf, around } from '@/api/client'
import { type Balance, balance } from '@/api/billing'
import { home, wechatCode } from '@/transport/platform'
import { recall, remember } from './storage'

export const user = reactive<{ token: string; me: account.User | undefined; balance: Balance | undefined }>({
  token: recall('token'),
  me: undefined,
  balance: undefined,
})

export const isLoggedIn = computed(() => user.token !== '')
export const isGuest = computed(() => user.me?.is_guest ?? false)

/** Where one's own picture is; empty without one. */
export const portrait = computed(() => (user.me?.avatar_url ? addressOf(user.me.avatar_url, {}) : ''))

const leavers: ((isOver: boolean) => void)[] = []

/**
 * Has something of a person's forgotten when they leave, or another one comes. `isOver`: nobody left; a log-in ended by
 * itself, or there was none before this one.
 */
export function onLeave(forget: (isOver: boolean) => void): void {
  leavers.push(forget)
}

/** Sets what every request carries; at the app's start. */
export function begin(): void {
  const { server, appId } = home()
  Object.assign(around, { server, appId, token: user.token, loggedOut: () => forgetUser(true) })
}

export function enter({ token, user: me }: account.LoggedIn): void {
  forgetUser(!isLoggedIn.value)
  user.token = around.token = token
  user.me = me
  remember('token', token)
}

export function forgetUser(isOver = false): void {
  user.token = around.token = ''
  user.me = user.balance = undefined
  remember('token', '')
  leavers.forEach((forget) => forget(isOver))
}

export async function leave(): Promise<void> {
  await account.logout().catch(() => undefined)
  forgetUser()
}

/** Asks who one is and what one has; a token that is over is dropped on the way. */
export async function refreshUser(): Promise<void> {
  if (!isLoggedIn.value) return
  const [me, has] = await Promise.all([account.me(), balance()])
  user.me = me
  user.balance = has
}

export async function refreshBalance(): Promise<void> {
  if (isLoggedIn.value) user.balance = await balance()
}

/** Logs in by WeChat's own word, where there is one; says whether it went. */
export async function enterByWeChat(): Promise<boolean> {
  const code = await wechatCode()
  if (code === undefined) return false
  enter(await account.loginWithWeChat(code, around.appId))
  return true
}
