// @vitest-environment jsdom
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { contrast, parse, tints } from '@/stores/colours'
import { groups, pieces } from '@/stores/history'
import { isMore, roughYuan, yuan } from '@/stores/money'
import { qrRows } from '@/stores/qr'
import { alternatives, branch } from '@/stores/tree'

vi.hoisted(() => {
  const kept = new Map<string, string>()
  Object.assign(globalThis, {
    uni: {
      getStorageSync: (name: string) => kept.get(name) ?? '',
      setStorageSync: (name: string, value: string) => kept.set(name, value),
      removeStorageSync: (name: string) => kept.delete(name),
      getWindowInfo: () => ({ windowWidth: 390 }),
      getAppBaseInfo: () => ({ language: 'zh-Hans' }),
    },
    wx: { onAppShow: () => undefined, onNetworkStatusChange: () => undefined },
  })
})

describe('money', () => {
  it.each([
    ['0', '0.00', '0.00'],
    ['1', '0.000001', '0.00'],
    ['16400', '0.0164', '0.01'],
    ['20000000', '20.00', '20.00'],
    ['-2230', '−0.00223', '−0.00'],
    ['9223372036854775807', '9223372036854.775807', '9223372036854.77'],
  ])('%s micro-yuan are ¥%s, at a glance ¥%s', (micro, exact, rough) => {
    expect([yuan(micro), roughYuan(micro)]).toEqual([exact, rough])
  })

  it('is compared as what it is, not as text', () => {
    expect([isMore('10', '9'), isMore('9', '10'), isMore('9', '9')]).toEqual([true, false, false])
  })
})

describe('a tenant’s colour', () => {
  it.each(['#ffffff', '#000000', '#ffe600', '#4f46e5', '#be185d', '#7fffd4', 'nonsense'])('%s is readable', (colour) => {
    const rgb = (css: string) => css.match(/\d+/g)?.slice(0, 3).map(Number) as [number, number, number]
    for (const dark of [false, true]) {
      const made = tints(colour, dark)
      expect(contrast(rgb(made.brand), [255, 255, 255])).toBeGreaterThanOrEqual(4.5)
      expect(contrast(rgb(made.brandText), dark ? [22, 23, 26] : [255, 255, 255])).toBeGreaterThanOrEqual(4.5)
    }
  })

  it('that is readable already stays as it is', () => {
    expect(tints('#4f46e5', false).brand).toBe(`rgb(${parse('#4f46e5').join(', ')})`)
  })
})

const node = (id: string, parent_id: string | null, at: number) => ({ id, parent_id, created_at: `2026-11-26T00:00:0${at}Z` })

describe('a conversation’s tree', () => {
  const said = [node('a', null, 1), node('b', 'a', 2), node('b2', 'a', 3), node('c', 'b', 4), node('d2', 'b2', 5)]
  const ids = (list: { id: string }[]) => list.map(({ id }) => id)

  it('shows the branch of the latest message', () => {
    expect(ids(branch(said))).toEqual(['a', 'b2', 'd2'])
  })

  it('shows the latest beneath what was chosen', () => {
    expect(ids(branch(said, 'b'))).toEqual(['a', 'b', 'c'])
    expect(ids(branch(said, 'a'))).toEqual(['a', 'b2', 'd2'])
  })

  it('knows alternatives, and goes on where a parent is not loaded', () => {
    expect(ids(alternatives(said, said[1] as never))).toEqual(['b', 'b2'])
    expect(ids(branch([node('x', 'gone', 1)]))).toEqual(['x'])
    expect(branch([])).toEqual([])
  })
})

describe('the history', () => {
  it('is grouped by how long ago it was', () => {
    const now = new Date(2026, 10, 26, 12)
    const one = (id: string, days: number, is_pinned = false) => {
      const at = new Date(now.getTime() - days * 86_400_000).toISOString()
      return { id, title: '', role: null, is_pinned, is_archived: false, created_at: at, updated_at: at }
    }
    const list = [one('p', 90, true), one('t', 0), one('y', 1), one('w', 3), one('m', 20), one('o', 60)]
    expect(groups(list, now).map(({ name, list: [first] }) => [name, first?.id])).toEqual([
      ['pinned', 'p'],
      ['today', 't'],
      ['yesterday', 'y'],
      ['week', 'w'],
      ['month', 'm'],
      ['older', 'o'],
    ])
    expect(groups([], now)).toEqual([])
  })
})

describe('what a search found', () => {
  it('shows what was looked for apart, without Markdown', () => {
    expect(pieces('快速**排序**：`sorted()`', '排序')).toEqual([
      { text: '快速 ', isHit: false },
      { text: '排序', isHit: true },
      { text: ' ： sorted()', isHit: false },
    ])
    expect(pieces('C++ (and c)', 'c++ and').filter(({ isHit }) => isHit).map(({ text }) => text)).toEqual(['C++', 'and'])
    expect(pieces('as it is', ' ')).toEqual([{ text: 'as it is', isHit: false }])
  })
})

describe('a QR code', () => {
  it('is square, with its three corners', () => {
    const rows = qrRows('weixin://wxpay/bizpayurl?pr=abc')
    expect(rows.every((row) => row.length === rows.length)).toBe(true)
    const last = rows.length - 7
    for (const [y, x] of [[0, 0], [0, last], [last, 0]] as const) expect(rows[y]?.slice(x, x + 7)).toEqual(Array(7).fill(true))
  })
})

describe('the API', () => {
  let replies: unknown[] = []
  const calls: { url: string; header: Record<string, string> }[] = []

  beforeEach(async () => {
    calls.length = 0
    Object.assign(uni, {
      request: (options: { url: string; header: Record<string, string>; success(result: object): void; fail(): void }) => {
        calls.push({ url: options.url, header: options.header })
        const data = replies.shift()
        if (data === undefined) options.fail()
        else options.success({ data, statusCode: 200 })
      },
    })
    const { around } = await import('@/api/client')
    Object.assign(around, { server: 'https://s', appId: 'wx1', token: 't', language: 'en', offline: 'away', loggedOut: vi.fn() })
  })

  it('gives the data of a success, asked with token, language and app id', async () => {
    const { get } = await import('@/api/client')
    replies = [{ code: 1, msg: 'ok', data: { a: 1 } }]
    expect(await get('/x', { q: '你 &', none: undefined })).toEqual({ a: 1 })
    expect(calls).toEqual([
      { url: 'https://s/x?q=%E4%BD%A0%20%26&appid=wx1', header: { 'Accept-Language': 'en', Authorization: 'Bearer t' } },
    ])
  })

  it('throws what was refused, says when a log-in is over, and when nobody answers', async () => {
    const { around, get } = await import('@/api/client')
    replies = [{ code: 102, msg: 'later' }, { code: 0, msg: 'fault' }, { code: -1, msg: 'log in' }, 'nonsense']
    const said = async () => get('/x').catch((failure: { refusal: { code: number; msg: string } }) => failure.refusal)
    expect(await said()).toMatchObject({ code: 102, msg: 'later' })
    expect(await said()).toMatchObject({ code: 0, msg: 'fault' })
    expect(around.loggedOut).not.toHaveBeenCalled()
    expect(await said()).toMatchObject({ code: -1, msg: 'log in' })
    expect(around.loggedOut).toHaveBeenCalledTimes(1)
    expect(await said()).toMatchObject({ code: 0, msg: 'away' })
    expect(await said()).toMatchObject({ code: 0, msg: 'away', type: 'network' })
  })
})
