/** JSON requests: `{"code": 1, "data": …}` becomes the data, everything else a `Refused`. */

import { refusalOf, type Refusal } from '@/protocol/events'

export class Refused extends Error {
  /** `told` has what a refusal says besides: the ways to prove oneself, a captcha's key. */
  constructor(
    readonly refusal: Refusal,
    readonly told: Record<string, unknown> = {},
  ) {
    super(refusal.msg)
  }
}

export type Query = Record<string, string | number | boolean | undefined>

/** What every request carries; stores/session.ts sets it. */
export interface Surroundings {
  server: string
  appId: string
  token: string
  language: string
  /** What is said where the network is away. */
  offline: string
  /** Called with each refusal that says that the log-in is over. */
  loggedOut(): void
}

export const around: Surroundings = {
  server: '',
  appId: '',
  token: '',
  language: 'zh-CN',
  offline: '',
  loggedOut: () => undefined,
}

export function get<T>(path: string, query: Query = {}): Promise<T> {
  return send('GET', path, query)
}

export function post<T>(path: string, body: object = {}, query: Query = {}): Promise<T> {
  return send('POST', path, query, body)
}

export function addressOf(path: string, query: Query): string {
  const given = Object.entries({ ...query, appid: around.appId || undefined }).filter(([, value]) => value !== undefined)
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join('&')
  return `${around.server}${path}${text === '' ? '' : `?${text}`}`
}

function send<T>(method: 'GET' | 'POST', path: string, query: Query, body?: object): Promise<T> {
  const token = around.token
  return new Promise((resolve, reject) => {
    uni.request({
      url: addressOf(path, query),
      method,
      data: body as object,
      header: {
        'Accept-Language': around.language,
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...(token === '' ? {} : { Authorization: `Bearer ${token}` }),
      },
      timeout: 30_000,
      success: ({ data }) => {
        const told = (typeof data === 'object' && data !== null ? data : {}) as Record<string, unknown>
        if (told.code === 1) {
          resolve(told.data as T)
          return
        }
        const refusal = refusalOf(told, around.offline)
        if (refusal.code === -1 && token !== '' && token === around.token) around.loggedOut()
        reject(new Refused(refusal, told))
      },
      fail: () => reject(new Refused(refusalOf({ type: 'network' }, around.offline))),
    })
  })
}

/** Returns the text of a file that wants the token, such as an archive. */
export function download(path: string, query: Query = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    uni.request({
      url: addressOf(path, query),
      method: 'GET',
      dataType: 'text',
      header: { 'Accept-Language': around.language, Authorization: `Bearer ${around.token}` },
      success: ({ data, statusCode }) => {
        const text = typeof data === 'string' ? data : JSON.stringify(data, null, 1)
        if (statusCode === 200) resolve(text)
        else reject(new Refused(refusalOf(parsed(text), around.offline)))
      },
      fail: () => reject(new Refused(refusalOf({ type: 'network' }, around.offline))),
    })
  })
}

function parsed(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return {}
  }
}
