// @vitest-environment jsdom
import { beforeEach, describe, expect, it, vi } from 'vitest'

const TERMS = { url: 'https://a.example/terms', version: 2, changed_on: '2026-11-20' }

const told = (purchases: { hidden: boolean; reason: string }) => ({
  company: 'Aurora Ltd',
  contact: 'a@example.com',
  filed: { model_name: '', model_filing: '', algorithm_filing: '', icp_number: '' },
  age_notice: '',
  terms: TERMS,
  privacy: { ...TERMS, url: 'https://a.example/privacy' },
  purchases,
})

const world = vi.hoisted(() => {
  const found = { url: '', reply: undefined as unknown, copied: '', said: '', opened: '', released: '' }
  Object.assign(globalThis, {
    uni: {
      getStorageSync: () => '',
      setStorageSync: () => undefined,
      removeStorageSync: () => undefined,
      getWindowInfo: () => ({ windowWidth: 390 }),
      getAppBaseInfo: () => ({ language: 'en', appVersion: '1.0.0' }),
      getDeviceInfo: () => ({ platform: 'ios' }),
      setClipboardData: () => undefined,
      showToast: ({ title }: { title: string }) => (found.said = title),
      request: (options: { url: string; success(result: object): void; fail(): void }) => {
        found.url = options.url
        if (found.reply === undefined) options.fail()
        else options.success({ data: { code: 1, msg: '', data: found.reply }, statusCode: 200 })
      },
    },
    wx: {
      onAppShow: () => undefined,
      onNetworkStatusChange: () => undefined,
      getAccountInfoSync: () => ({ miniProgram: { appId: 'wx1', version: found.released } }),
    },
  })
  // Of the two ways of copying the page's stands first in the source.
  Object.assign(navigator, { clipboard: { writeText: (text: string) => Promise.resolve((found.copied = text)) } })
  return found
})

// The sources are run as they stand, so both sides of an `#ifdef` are there: this is a mini-program.
describe('what the law and the stores want said', () => {
  beforeEach(async () => {
    Object.assign(world, { url: '', reply: undefined, copied: '', said: '', released: '' })
    const { site } = await import('@/stores/site')
    site.told = undefined
  })

  it('is asked with the platform and the version: WeChat’s, and the program’s own where it is not released', async () => {
    const { refreshSite } = await import('@/stores/site')
    world.reply = told({ hidden: false, reason: '' })
    await refreshSite()
    expect(world.url).toBe('/api/site?platform=ios&version=1.0.0')
    world.released = '1.4.2'
    await refreshSite()
    expect(world.url).toBe('/api/site?platform=ios&version=1.4.2')
  })

  it('hides every till before it is known, where it says so, and where nobody answers', async () => {
    const { knowSite, refreshSite, sells } = await import('@/stores/site')
    expect(sells.value).toBe(false)
    await expect(knowSite()).rejects.toThrow()
    expect(sells.value).toBe(false)
    world.reply = told({ hidden: true, reason: 'review' })
    await knowSite()
    expect(sells.value).toBe(false)
    world.reply = told({ hidden: false, reason: '' })
    await knowSite() // asks no more, once it knows
    expect(sells.value).toBe(false)
    await refreshSite()
    expect(sells.value).toBe(true)
  })

  it('has its texts copied in a mini-program, in the language of the reader', async () => {
    const { readLegal } = await import('@/stores/site')
    const { chooseLanguage } = await import('@/stores/look')
    readLegal(TERMS)
    await vi.waitFor(() => expect(world.said).toBe('Link copied: please open it in a browser'), 30_000)
    expect(world.copied).toBe('https://a.example/terms?lang=en')
    chooseLanguage('zh')
    readLegal(TERMS)
    await vi.waitFor(() => expect(world.copied).toBe('https://a.example/terms?lang=zh-hans'), 30_000)
    chooseLanguage('en')
  })
})
