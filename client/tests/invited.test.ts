// @vitest-environment jsdom
import { beforeEach, describe, expect, it, vi } from 'vitest'

const world = vi.hoisted(() => {
  const found = {
    kept: new Map<string, string>(),
    asked: [] as { url: string; data: unknown }[],
    reply: { code: 1, msg: '', data: { inviter: 'Ann' } } as object | undefined,
    said: '',
    file: { url: '', header: {} as Record<string, string>, isThere: true },
  }
  Object.assign(globalThis, {
    uni: {
      getStorageSync: (name: string) => found.kept.get(name) ?? '',
      setStorageSync: (name: string, value: string) => found.kept.set(name, value),
      removeStorageSync: (name: string) => found.kept.delete(name),
      getStorageInfoSync: () => ({ keys: [...found.kept.keys()] }),
      getWindowInfo: () => ({ windowWidth: 390 }),
      getAppBaseInfo: () => ({ language: 'en' }),
      showToast: ({ title }: { title: string }) => (found.said = title),
      request: (options: { url: string; data: unknown; success(result: object): void; fail(): void }) => {
        found.asked.push({ url: options.url, data: options.data })
        if (found.reply === undefined) options.fail()
        else options.success({ data: found.reply, statusCode: 200 })
      },
      downloadFile: (options: { url: string; header: Record<string, string>; success(result: object): void; fail(): void }) => {
        Object.assign(found.file, { url: options.url, header: options.header })
        if (found.file.isThere) options.success({ statusCode: 200, tempFilePath: 'wxfile://code.jpg' })
        else options.success({ statusCode: 404, tempFilePath: 'wxfile://refusal.json' })
      },
    },
    wx: { onAppShow: () => undefined, onNetworkStatusChange: () => undefined, getExtConfigSync: () => ({ server: '' }) },
  })
  return found
})

beforeEach(() => {
  vi.resetModules()
  world.kept.clear()
  Object.assign(world, { asked: [], reply: { code: 1, msg: '', data: { inviter: 'Ann' } }, said: '' })
  // The sources are run as they stand, so both sides of an `#ifdef` are there: the page's stands first.
  vi.stubGlobal('fetch', () => new Promise(() => undefined))
})

async function stores() {
  const { user, enter } = await import('@/stores/user')
  const { cameBy } = await import('@/stores/invited')
  return { user, enter, cameBy }
}

const ann = { token: 'new', user: { id: 7, is_guest: false } as never }

describe('one’s own code', () => {
  it('is the picture that the server has of it, or none', async () => {
    const { enter } = await stores()
    const { around } = await import('@/api/client')
    const { ownCode } = await import('@/stores/code')
    enter(ann)
    around.appId = 'wx1'
    expect(await ownCode()).toBe('wxfile://code.jpg')
    expect([world.file.url, world.file.header]).toEqual([
      '/api/billing/invitation/mini-program-code?appid=wx1',
      { Authorization: 'Bearer new' },
    ])
    world.file.isThere = false
    expect(await ownCode()).toBe('')
  })
})

describe('who came by a mini-program’s code', () => {
  it('says so as soon as they are logged in, once', async () => {
    const { enter, cameBy } = await stores()
    cameBy('ABCD%32345')
    expect(world.asked).toEqual([])
    enter(ann)
    await vi.waitFor(() => expect(world.said).toContain('Ann'))
    expect(world.asked).toEqual([
      { url: '/api/billing/invitation/accept', data: { code: 'ABCD2345', device_id: world.kept.get('banyan.device') } },
    ])
    enter(ann)
    expect([world.asked.length, world.kept.has('banyan.invited')]).toEqual([1, false])
  })

  it('who is logged in says so at once, and hears nothing where it does not count', async () => {
    const { enter, cameBy } = await stores()
    enter(ann)
    world.reply = { code: 10001, msg: 'too late', type: 'invitation_too_late' }
    cameBy('ABCD2345')
    await vi.waitFor(() => expect(world.kept.has('banyan.invited')).toBe(false))
    expect([world.asked.length, world.said]).toEqual([1, ''])
  })

  it.each([
    { why: 'nobody answers', reply: undefined },
    { why: 'a guest', reply: { code: 10001, msg: 'no', type: 'guest_not_rewarded' } },
    { why: 'a log-in that is over', reply: { code: -1, msg: 'log in', type: 'login_required' } },
  ])('may say it another time: $why', async ({ reply }) => {
    const { enter, cameBy } = await stores()
    world.reply = reply
    enter(ann)
    cameBy('ABCD2345')
    await vi.waitFor(() => expect(world.asked.length).toBe(1))
    await new Promise((resolve) => setTimeout(resolve, 0))
    expect(world.kept.get('banyan.invited')).toBe('ABCD2345')
    world.reply = { code: 1, msg: '', data: { inviter: 'Ann' } }
    enter(ann)
    await vi.waitFor(() => expect(world.kept.has('banyan.invited')).toBe(false))
  })

  it.each([undefined, '', 'abc', '%E0%A4%A', 'a b c d', '<script>', 'A'.repeat(17)])('nothing else is a code: %s', async (scene) => {
    const { enter, cameBy } = await stores()
    enter(ann)
    cameBy(scene)
    expect([world.asked, world.kept.has('banyan.invited')]).toEqual([[], false])
  })
})
