// @vitest-environment jsdom
import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { User } from '@/api/account'
import type { Picked } from '@/transport/platform'

interface Sent {
  url: string
  path: string
  token: string
  take(body: object): void
  lose(): void
  progress(percent: number): void
}

const sent: Sent[] = []
const asked: string[] = []
const said: string[] = []
const freed: string[] = []

vi.hoisted(() => {
  Object.assign(globalThis, {
    uni: {
      getStorageSync: () => '',
      setStorageSync: () => undefined,
      removeStorageSync: () => undefined,
      getWindowInfo: () => ({ windowWidth: 390 }),
      getAppBaseInfo: () => ({ language: 'en' }),
    },
  })
})

const alice: User = {
  id: 1,
  username: 'alice',
  phone: null,
  email: null,
  nickname: 'Alice',
  language: '',
  is_guest: false,
  avatar_url: null,
}
const drawn = { ...alice, avatar_url: '/api/auth/avatars/abc' }
const small: Picked = { name: 'me.png', size: 1000, isImage: true, path: '/tmp/me.png', preview: 'blob:me' }

async function stores() {
  const { user, portrait, forgetUser } = await import('@/stores/user')
  const { around } = await import('@/api/client')
  const { avatar, sendAvatar, removeAvatar } = await import('@/stores/avatar')
  return { user, portrait, forgetUser, around, avatar, sendAvatar, removeAvatar }
}

async function loggedIn() {
  const all = await stores()
  Object.assign(all.around, { server: 'https://chat.example.com', appId: 'wx1', token: 'token', loggedOut: () => undefined })
  all.user.token = 'token'
  all.user.me = alice
  return all
}

beforeEach(() => {
  vi.resetModules()
  sent.length = asked.length = said.length = freed.length = 0
  vi.stubGlobal('URL', Object.assign(URL, { revokeObjectURL: (address: string) => freed.push(address) }))
  Object.assign(uni, {
    uploadFile: (options: {
      url: string
      filePath: string
      header: { Authorization: string }
      success(result: object): void
      fail(): void
    }) => {
      const one: Sent = {
        url: options.url,
        path: options.filePath,
        token: options.header.Authorization,
        take: (body) => options.success({ data: JSON.stringify(body), statusCode: 200 }),
        lose: () => options.fail(),
        progress: () => undefined,
      }
      sent.push(one)
      return { onProgressUpdate: (then: (now: { progress: number }) => void) => (one.progress = (progress) => then({ progress })) }
    },
    request: (options: { url: string; success(result: object): void }) => {
      asked.push(options.url)
      options.success({ data: { code: 1, msg: 'ok', data: alice }, statusCode: 200 })
    },
    showToast: ({ title }: { title: string }) => said.push(title),
  })
})

describe('one’s picture', () => {
  it('is on its way, with its progress, and then at the server’s address', async () => {
    const { user, portrait, avatar, sendAvatar } = await loggedIn()
    expect(portrait.value).toBe('')
    const going = sendAvatar(small)
    expect(sent.map(({ url, path, token }) => [url, path, token])).toEqual([
      ['https://chat.example.com/api/auth/avatar?appid=wx1', '/tmp/me.png', 'Bearer token'],
    ])
    sent[0]?.progress(40)
    expect(avatar).toEqual({ isSending: true, progress: 40, preview: 'blob:me', failure: '' })
    void sendAvatar(small)
    expect(sent.length).toBe(1)
    sent[0]?.take({ code: 1, msg: 'ok', data: drawn })
    await going
    expect(avatar).toEqual({ isSending: false, progress: 40, preview: '', failure: '' })
    expect([user.me, portrait.value]).toEqual([drawn, 'https://chat.example.com/api/auth/avatars/abc?appid=wx1'])
    expect(freed).toEqual(['blob:me'])
  })

  it('that is not taken leaves the one before, and says why until another one is chosen', async () => {
    const { user, avatar, sendAvatar } = await loggedIn()
    user.me = drawn
    const going = sendAvatar(small)
    sent[0]?.take({ code: 10001, type: 'picture_not_taken', msg: 'This picture cannot be read here.' })
    await going
    expect([avatar.isSending, avatar.failure, user.me]).toEqual([false, 'This picture cannot be read here.', drawn])
    const again = sendAvatar(small)
    expect(avatar.failure).toBe('')
    sent[1]?.lose()
    await again
    expect([avatar.isSending, avatar.failure !== '', freed]).toEqual([false, true, ['blob:me', 'blob:me']])
  })

  it('that is too large is not sent', async () => {
    const { avatar, sendAvatar } = await loggedIn()
    await sendAvatar({ ...small, size: 8 * 1024 * 1024 + 1 })
    expect([sent.length, avatar.failure, freed]).toEqual([0, 'Larger than 8 MB: me.png', ['blob:me']])
  })

  it('is removed', async () => {
    const { user, portrait, removeAvatar } = await loggedIn()
    user.me = drawn
    await removeAvatar()
    expect(asked).toEqual(['https://chat.example.com/api/auth/avatar/delete?appid=wx1'])
    expect([user.me, portrait.value]).toEqual([alice, ''])
  })

  it('is not given to whoever comes after', async () => {
    const { user, forgetUser, avatar, sendAvatar } = await loggedIn()
    const going = sendAvatar(small)
    forgetUser()
    user.token = 'another'
    sent[0]?.take({ code: 1, msg: 'ok', data: drawn })
    await going
    expect([user.me, avatar.isSending, avatar.failure]).toEqual([undefined, false, ''])
  })

  it('whose refusal comes after its owner left is not told to the next', async () => {
    const { user, forgetUser, avatar, sendAvatar, removeAvatar } = await loggedIn()
    avatar.failure = 'before'
    const going = sendAvatar(small)
    forgetUser()
    user.token = 'another'
    sent[0]?.take({ code: 10001, type: 'picture_not_taken', msg: 'no' })
    await going
    await removeAvatar()
    expect([avatar.failure, said]).toEqual(['', []])
  })
})
