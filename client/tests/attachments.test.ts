// @vitest-environment jsdom
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import type { Picked } from '@/transport/platform'

interface Sent {
  url: string
  name: string
  take(body: object): void
  lose(): void
  progress(percent: number): void
}

const sent: Sent[] = []
const asked: { url: string; data?: unknown }[] = []
const bodies: Record<string, unknown>[] = []
const kept = vi.hoisted(() => new Map<string, string>())

vi.hoisted(() => {
  Object.assign(globalThis, {
    uni: {
      getStorageSync: (name: string) => kept.get(name) ?? '',
      setStorageSync: (name: string, value: string) => kept.set(name, value),
      removeStorageSync: (name: string) => kept.delete(name),
      getWindowInfo: () => ({ windowWidth: 390 }),
      getAppBaseInfo: () => ({ language: 'en' }),
    },
    wx: { onAppShow: () => undefined, onNetworkStatusChange: () => undefined },
  })
})

let number = 0

function picked(name: string, more: Partial<Picked> = {}): Picked {
  const isImage = /\.(png|jpg)$/.test(name)
  return { name, size: 1000, isImage, path: `/tmp/${name}`, preview: isImage ? `blob:${name}` : '', ...more }
}

function file(id: string, kind: 'image' | 'text' = 'image') {
  return { id, kind, name: `${id}.x`, size: 10, width: 4, height: 3 }
}

/** The server takes an upload. */
function accept(at: number): string {
  const one = sent[at]
  const id = `file-${(number += 1)}`
  one?.take({ code: 1, msg: 'ok', data: { ...file(id, one.name.endsWith('.md') ? 'text' : 'image'), name: one.name } })
  return id
}

async function stores() {
  const { brand } = await import('@/stores/brand')
  const { user } = await import('@/stores/user')
  const { around } = await import('@/api/client')
  const attachments = await import('@/stores/attachments')
  const chat = await import('@/stores/chat')
  return { brand, user, around, attachments, chat }
}

function logIn(user: { token: string }, around: { token: string }, token: string): void {
  user.token = around.token = token
}

beforeEach(async () => {
  vi.resetModules()
  kept.clear()
  sent.length = asked.length = bodies.length = 0
  vi.stubGlobal('URL', Object.assign(URL, { revokeObjectURL: vi.fn(), createObjectURL: () => 'blob:made' }))
  Object.assign(uni, {
    uploadFile: (options: {
      url: string
      formData: { name: string }
      success(result: object): void
      fail(): void
    }) => {
      const one: Sent = {
        url: options.url,
        name: options.formData.name,
        take: (body) => options.success({ data: JSON.stringify(body), statusCode: 200 }),
        lose: () => options.fail(),
        progress: () => undefined,
      }
      sent.push(one)
      return { onProgressUpdate: (then: (now: { progress: number }) => void) => (one.progress = (progress) => then({ progress })) }
    },
    request: (options: { url: string; data?: unknown; success(result: object): void }) => {
      asked.push({ url: options.url, data: options.data })
      options.success({ data: { code: 1, msg: 'ok', data: [] }, statusCode: 200 })
    },
  })
  vi.stubGlobal('fetch', (_url: string, options: { body: string }) => {
    bodies.push(JSON.parse(options.body) as Record<string, unknown>)
    return new Promise(() => undefined)
  })
  const { brand, user, around } = await stores()
  const model = { slug: 'm', name: 'M', is_default: true, images: true, files: true }
  brand.front = { ...brand.front, models: [model, { ...model, slug: 'blind', is_default: false, images: false }] }
  logIn(user, around, 'token')
})

describe('what is attached', () => {
  it('is uploaded at once, and goes with the question when all is there', async () => {
    const { attachments, chat } = await stores()
    expect(attachments.add([picked('a.png'), picked('b.md')])).toBe('')
    expect(sent.map(({ url, name }) => [url, name])).toEqual([
      ['/api/chat/attachments', 'a.png'],
      ['/api/chat/attachments', 'b.md'],
    ])
    sent[0]?.progress(40)
    expect(attachments.items.value.map(({ state, progress }) => [state, progress])).toEqual([
      ['sending', 40],
      ['sending', 0],
    ])
    const first = accept(0)
    await nextTick()
    chat.send('what is this?')
    expect([bodies, attachments.isReady.value]).toEqual([[], false])
    const second = accept(1)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    chat.send('what is this?')
    expect(bodies).toMatchObject([{ message: 'what is this?', attachments: [first, second] }])
    expect(chat.chat.live?.files.map(({ id }) => id)).toEqual([first, second])
    expect(attachments.items.value).toEqual([])
  })

  it('is no part of a question without any', async () => {
    const { chat } = await stores()
    chat.send('hello')
    expect([bodies.length, 'attachments' in (bodies[0] ?? {})]).toEqual([1, false])
  })

  it('that failed says why, and is uploaded again', async () => {
    const { attachments, chat } = await stores()
    attachments.add([picked('a.png')])
    sent[0]?.take({ code: 10001, msg: 'no picture', type: 'attachment_not_taken' })
    await vi.waitFor(() => expect(attachments.hasFailed.value).toBe(true))
    const [item] = attachments.items.value
    expect([item?.state, item?.failure]).toEqual(['failed', 'no picture'])
    chat.send('x')
    expect(bodies).toEqual([])
    attachments.retry(item as never)
    sent[1]?.lose()
    await vi.waitFor(() => expect(attachments.hasFailed.value).toBe(true))
    attachments.retry(attachments.items.value[0] as never)
    accept(2)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
  })

  it('is bounded before anything is sent', async () => {
    const { attachments, brand } = await stores()
    expect(attachments.add([picked('huge.png', { size: 9_000_000 })])).toContain('huge.png')
    expect(attachments.add(['1', '2', '3', '4', '5'].map((name) => picked(`${name}.md`)))).toContain('4')
    expect([sent.length, attachments.items.value.length]).toEqual([4, 4])
    const { choice } = await import('@/stores/brand')
    attachments.turnTo('other')
    choice.model = 'blind'
    expect(attachments.add([picked('a.png'), picked('b.md')])).not.toBe('')
    expect(attachments.items.value.map(({ name }) => name)).toEqual(['b.md'])
    expect(brand.front.models.length).toBe(2)
  })

  it('holds the question back where the model was changed to one that takes no pictures', async () => {
    const { attachments, chat } = await stores()
    const { choice } = await import('@/stores/brand')
    attachments.add([picked('a.png')])
    accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    choice.model = 'blind'
    expect([attachments.isBlind.value, attachments.isReady.value]).toEqual([true, false])
    chat.send('x')
    expect(bodies).toEqual([])
  })

  it('is thrown away at the server when it is removed, unless it was sent', async () => {
    const { attachments } = await stores()
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    attachments.remove(attachments.items.value[0] as never)
    expect(asked.map(({ url }) => url)).toEqual([`/api/chat/attachments/${id}/delete`])
    attachments.editing('m-1', [file('old')])
    attachments.remove(attachments.items.value[0] as never)
    expect([asked.length, attachments.items.value.length]).toEqual([1, 0])
  })
})

describe('what waits in the composer', () => {
  it('is kept for each conversation, over a reload', async () => {
    const { attachments } = await stores()
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    attachments.turnTo('c-1')
    expect(attachments.items.value).toEqual([])
    vi.resetModules()
    const again = (await stores()).attachments
    expect(again.items.value.map(({ kept: known, state }) => [known?.id, state])).toEqual([[id, 'kept']])
  })

  it('waits for a log-in, and goes up after it', async () => {
    const { attachments, chat, user, around } = await stores()
    logIn(user, around, '')
    attachments.add([picked('a.png')])
    expect(sent).toEqual([])
    chat.send('what is this?')
    expect(chat.chat.detour).toEqual({ at: 'login', unsent: 'what is this?' })
    const { enter } = await import('@/stores/user')
    enter({ token: 'new', user: {} as never })
    chat.comeBack()
    expect(sent.map(({ name }) => name)).toEqual(['a.png'])
    expect([chat.chat.draft, attachments.items.value.length]).toEqual(['what is this?', 1])
  })

  it('comes back where a payment is wanted', async () => {
    const { attachments, chat } = await stores()
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    attachments.putBack(attachments.take())
    attachments.putBack([file(id)])
    expect(attachments.items.value.map(({ kept: known }) => known?.id)).toEqual([id])
    expect(chat.chat.live).toBe(undefined)
  })

  it('is forgotten with the person', async () => {
    const { attachments } = await stores()
    attachments.add([picked('a.png')])
    accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    expect([...kept.keys()]).toContain('banyan.attached.new')
    const { forgetUser } = await import('@/stores/user')
    forgetUser()
    expect([attachments.items.value, [...kept.keys()].filter((name) => name.includes('attached'))]).toEqual([[], []])
  })
})

describe('a question that is asked again', () => {
  const message = {
    id: 'm-1',
    parent_id: null,
    model: 'm',
    question: 'one',
    attachments: [file('old'), file('text', 'text')],
    answer: '1',
    state: 'done',
    finish_reason: 'stop',
    receipt: null,
    failure: null,
    feedback: null,
    created_at: '2026-11-26T00:00:00Z',
    ended_at: '2026-11-26T00:00:01Z',
  }

  it('names no attachments, which stay', async () => {
    const { chat } = await stores()
    chat.regenerate(message as never)
    expect([bodies[0]?.regenerate, 'attachments' in (bodies[0] ?? {})]).toEqual(['m-1', false])
    expect(chat.chat.live?.files.length).toBe(2)
  })

  it('and edited names those that are left, none too', async () => {
    const { attachments, chat } = await stores()
    chat.chat.messages = [message as never]
    chat.edit(message as never)
    expect(attachments.items.value.map(({ name }) => name)).toEqual(['old.x', 'text.x'])
    attachments.remove(attachments.items.value[1] as never)
    chat.send('one, edited')
    expect(bodies).toMatchObject([{ edit: 'm-1', message: 'one, edited', attachments: ['old'] }])
  })

  it('and given up leaves what waited before', async () => {
    const { attachments, chat } = await stores()
    attachments.add([picked('a.png')])
    chat.edit(message as never)
    chat.stopEditing()
    expect(attachments.items.value.map(({ name }) => name)).toEqual(['a.png'])
  })
})
