/** JSON requests: `{"code": 1, "data": …}` becomes the data, everything else a `Refused`. */

import { refusalOf, type Refusal } from '@/protocol/events'
import type { Picked } from '@/transport/platform'

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
      success: ({ data }) => take(data, token, resolve, reject),
      fail: () => reject(new Refused(refusalOf({ type: 'network' }, around.offline))),
    })
  })
}

function take<T>(data: unknown, token: string, resolve: (data: T) => void, reject: (refused: Refused) => void): void {
  const told = (typeof data === 'object' && data !== null ? data : {}) as Record<string, unknown>
  if (told.code === 1) {
    resolve(told.data as T)
    return
  }
  const refusal = refusalOf(told, around.offline)
  if (refusal.code === -1 && token !== '' && token === around.token) around.loggedOut()
  reject(new Refused(refusal, told))
}

/** How long an upload may take on a bad network, ms. */
const UPLOAD = 180_000

/** Uploads a file as the form field "file", and tells how far it is, 0…100. */
export function upload<T>(path: string, picked: Picked, progress: (percent: number) => void): Promise<T> {
  const token = around.token
  return new Promise((resolve, reject) => {
    const task = uni.uploadFile({
      url: addressOf(path, {}),
      // A page has the file, and must name a path as well; the last part of a mini-program's is not the file's name.
      filePath: picked.path || picked.name,
      ...(picked.file === undefined ? {} : { file: picked.file }),
      name: 'file',
      formData: { name: picked.name },
      timeout: UPLOAD,
      header: { 'Accept-Language': around.language, Authorization: `Bearer ${token}` },
      success: ({ data }) => take(typeof data === 'string' ? parsed(data) : data, token, resolve, reject),
      fail: () => reject(new Refused(refusalOf({ type: 'network' }, around.offline))),
    }) as UniApp.UploadTask | undefined
    task?.onProgressUpdate?.(({ progress: percent }) => progress(percent))
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
