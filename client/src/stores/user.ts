/** Who is logged in on this device, and what they can spend. */

import { computed, reactive } from 'vue'
import * as account from '@/api/account'
import { addressOf, around } from '@/api/client'
import { type Balance, balance } from '@/api/billing'
import { home, wechatCode } from '@/transport/platform'
import { recall, remember } from './storage'

interface State {
  token: string
  /** Whose all is that waits here: the account's id, known before `me` is; empty for somebody who has not logged in. */
  owner: string
  me: account.User | undefined
  balance: Balance | undefined
}

export const user = reactive<State>({
  token: recall('token'),
  owner: recall('owner'),
  me: undefined,
  balance: undefined,
})

export const isLoggedIn = computed(() => user.token !== '')
export const isGuest = computed(() => user.me?.is_guest ?? false)

/** Where one's own picture is; empty without one. */
export const portrait = computed(() => (user.me?.avatar_url ? addressOf(user.me.avatar_url, {}) : ''))

/** Names what waits in a place (a conversation's id, or "new") for somebody: nobody else meets it there. */
export function own(place: string, owner = user.owner): string {
  return owner === '' ? place : `${owner}/${place}`
}

/** Says whether a name that `own` made is somebody's. */
export function isOwn(name: string, owner = user.owner): boolean {
  return owner === '' ? !name.includes('/') : name.startsWith(`${owner}/`)
}

type Leaver = (isOver: boolean, owner: string) => void
type Comer = (from: string, isSame: boolean) => void
const leavers: Leaver[] = []
const comers: Comer[] = []

/**
 * Has something of a person's (`owner`) put away when they leave, or another one comes. `isOver`: nobody left; a log-in
 * ended by itself, or another begins.
 */
export function onLeave(forget: Leaver): void {
  leavers.push(forget)
}

/**
 * Has what was begun under another name taken over by who is there now: by nobody's (empty), or by a guest's. `isSame`:
 * the account is the same, and only its name was not known.
 */
export function onCome(take: Comer): void {
  comers.push(take)
}

/** Sets what every request carries; at the app's start. */
export function begin(): void {
  const { server, appId } = home()
  Object.assign(around, { server, appId, token: user.token, loggedOut: () => forgetUser(true) })
}

export function enter({ token, user: me }: account.LoggedIn): void {
  // Who signs in with a guest's session is that guest, to the server too; anybody else's is theirs alone.
  const from = isGuest.value ? user.owner : ''
  forgetUser(true)
  user.token = around.token = token
  user.me = me
  remember('token', token)
  belong(me, from)
}

export function forgetUser(isOver = false): void {
  const { owner } = user
  user.token = around.token = user.owner = ''
  user.me = user.balance = undefined
  remember('token', '')
  remember('owner', '')
  leavers.forEach((forget) => forget(isOver, owner))
}

function belong({ id }: account.User, from: string, isSame = false): void {
  user.owner = String(id)
  remember('owner', user.owner)
  comers.forEach((take) => take(from, isSame))
}

export async function leave(): Promise<void> {
  await account.logout().catch(() => undefined)
  forgetUser()
}

/** Asks who one is and what one has; a token that is over is dropped on the way. */
export async function refreshUser(): Promise<void> {
  if (!isLoggedIn.value) return
  const { token } = user
  const [me, has] = await Promise.all([account.me(), balance()])
  if (user.token !== token) return
  user.me = me
  user.balance = has
  if (user.owner === '') belong(me, '', true)
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
