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
const replies: ((response: Response) => void)[] = []
const kept = vi.hoisted(() => new Map<string, string>())

vi.hoisted(() => {
  Object.assign(globalThis, {
    uni: {
      getStorageSync: (name: string) => kept.get(name) ?? '',
      setStorageSync: (name: string, value: string) => kept.set(name, value),
      removeStorageSync: (name: string) => kept.delete(name),
      getStorageInfoSync: () => ({ keys: [...kept.keys()] }),
      getWindowInfo: () => ({ windowWidth: 390 }),
      getAppBaseInfo: () => ({ language: 'en' }),
    },
    wx: {
      onAppShow: () => undefined,
      onNetworkStatusChange: () => undefined,
      getExtConfigSync: () => ({ server: '' }),
    },
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

/** The server refuses what was asked last. */
function refuse(code: number): void {
  replies.pop()?.(new Response(`event: error\ndata: ${JSON.stringify({ code, msg: 'no' })}\n\n`))
}

/** It has begun to answer, in a conversation that is new. */
function begun(conversation: string): void {
  const headers = { 'X-Message-Id': 'm-9', 'X-Conversation-Id': conversation }
  replies.pop()?.(new Response(new ReadableStream(), { headers }))
}

async function stores() {
  const { brand } = await import('@/stores/brand')
  const { user } = await import('@/stores/user')
  const { around } = await import('@/api/client')
  const attachments = await import('@/stores/attachments')
  const chat = await import('@/stores/chat')
  return { brand, user, around, attachments, chat }
}

function logIn(user: { token: string; owner: string }, around: { token: string }, token: string): void {
  user.token = around.token = token
  user.owner = token === '' ? '' : '7'
}

beforeEach(async () => {
  vi.resetModules()
  kept.clear()
  kept.set('banyan.owner', '7')
  sent.length = asked.length = bodies.length = replies.length = 0
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
    return new Promise((resolve) => replies.push(resolve))
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

  it('needs no words beside it', async () => {
    const { attachments, chat } = await stores()
    chat.send(' ')
    attachments.add([picked('a.png')])
    chat.send('')
    expect(bodies).toEqual([])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    chat.send(' ')
    expect(bodies).toMatchObject([{ message: '', attachments: [id] }])
    begun('c-7')
    await vi.waitFor(() => expect(chat.chat.id).toBe('c-7'))
    expect(chat.chat.title).toBe('Picture')
  })

  it('comes back without words, to what is typed', async () => {
    const { attachments, chat } = await stores()
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    chat.send()
    chat.keepDraft('typed')
    refuse(-1)
    await vi.waitFor(() => expect(chat.chat.live).toBe(undefined))
    expect([chat.chat.draft, attachments.items.value.map(({ kept: known }) => known?.id)]).toEqual(['typed', [id]])
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

  it('is bounded as the server says', async () => {
    const { attachments, brand, chat } = await stores()
    brand.front.attachments = { per_message: 2, file_bytes: 2000 }
    expect(attachments.add([picked('large.md', { size: 2001 })])).toContain('large.md')
    expect(attachments.add(['1', '2', '3'].map((name) => picked(`${name}.md`)))).toContain('2')
    accept(0)
    accept(1)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    brand.front.attachments.per_message = 1
    expect([attachments.isTooMany.value, attachments.isReady.value]).toEqual([true, false])
    chat.send('x')
    expect([bodies, attachments.items.value.length]).toEqual([[], 2])
    attachments.remove(attachments.items.value[0] as never)
    chat.send('x')
    expect(bodies.length).toBe(1)
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
    expect(chat.chat.detour).toEqual({ at: 'login', owner: '', place: 'new' })
    const { enter } = await import('@/stores/user')
    enter({ token: 'new', user: { id: 7 } as never })
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
    expect([...kept.keys()]).toContain('banyan.attached.7/new')
    const { forgetUser } = await import('@/stores/user')
    forgetUser()
    expect([attachments.items.value, [...kept.keys()].filter((name) => name.includes('attached'))]).toEqual([[], []])
  })
})

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

describe('a question that is asked again', () => {
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

describe('what is typed while an answer is under way', () => {
  beforeEach(async () => {
    const { site } = await import('@/stores/site')
    site.told = { purchases: { hidden: false } } as never
  })

  it.each([-1, 101])('is not replaced by an older question that is refused with %i, nor joined by its files', async (code) => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    chat.keepDraft('typed')
    chat.regenerate(message as never)
    refuse(code)
    await vi.waitFor(() => expect(chat.chat.live).toBe(undefined))
    expect([kept.get('banyan.draft.7/c-1'), chat.chat.draft, attachments.items.value]).toEqual(['typed', 'typed', []])
  })

  it.each(['', 'one '])('leaves room where there is nothing else ("%s"): the question comes back with its files', async (draft) => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    chat.keepDraft(draft)
    chat.regenerate(message as never)
    refuse(101)
    await vi.waitFor(() => expect(chat.chat.live).toBe(undefined))
    expect(attachments.items.value.map(({ name }) => name)).toEqual(['old.x', 'text.x'])
    expect(kept.get('banyan.draft.7/c-1')?.trim()).toBe('one')
    chat.comeBack()
    expect(chat.chat.draft.trim()).toBe('one')
  })

  it('stays out of a question that is being edited', async () => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    chat.keepDraft('typed')
    chat.edit({ ...message, attachments: [] } as never)
    chat.regenerate(message as never)
    refuse(101)
    await vi.waitFor(() => expect(chat.chat.live).toBe(undefined))
    expect([attachments.items.value, kept.get('banyan.draft.7/c-1')]).toEqual([[], 'typed'])
    chat.stopEditing()
    expect([chat.chat.draft, attachments.items.value]).toEqual(['typed', []])
  })

  it('has a question beneath the edit that comes back, with its files', async () => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    chat.edit({ ...message, attachments: [] } as never)
    chat.regenerate(message as never)
    refuse(101)
    await vi.waitFor(() => expect(chat.chat.live).toBe(undefined))
    expect(attachments.items.value).toEqual([])
    chat.stopEditing()
    expect([chat.chat.draft, attachments.items.value.length]).toEqual(['one', 2])
  })

  it('goes with a new conversation when that gets its id', async () => {
    const { attachments, chat } = await stores()
    chat.send('hello')
    chat.keepDraft('next')
    attachments.add([picked('a.png')])
    begun('c-7')
    await vi.waitFor(() => expect(chat.chat.id).toBe('c-7'))
    expect([kept.get('banyan.draft.7/c-7'), kept.has('banyan.draft.7/new')]).toEqual(['next', false])
    expect([chat.chat.draft, attachments.items.value.length]).toEqual(['next', 1])
    chat.startAnew()
    expect([chat.chat.draft, attachments.items.value]).toEqual(['', []])
  })
})

describe('an edit', () => {
  it('that is sent leaves what waited before', async () => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    chat.keepDraft('typed')
    attachments.add([picked('a.png')])
    accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    chat.edit(message as never)
    chat.send('one, edited')
    expect(bodies).toMatchObject([{ edit: 'm-1', message: 'one, edited', attachments: ['old', 'text'] }])
    expect([chat.chat.editing, chat.chat.draft, kept.get('banyan.draft.7/c-1')]).toEqual(['', 'typed', 'typed'])
    expect(attachments.items.value.map(({ name }) => name)).toEqual(['a.png'])
  })
})

describe('a log-in that is over', () => {
  it('leaves the files of a question that was sent where they are', async () => {
    const { attachments, chat } = await stores()
    const { enter, forgetUser } = await import('@/stores/user')
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    chat.send('what is this?')
    refuse(-1)
    await vi.waitFor(() => expect(chat.chat.detour.at).toBe('login'))
    expect(attachments.items.value.map(({ kept: known }) => known?.id)).toEqual([id])
    forgetUser(true)
    enter({ token: 'new', user: { id: 7 } as never })
    chat.comeBack()
    chat.send()
    expect(bodies[1]).toMatchObject({ message: 'what is this?', attachments: [id] })
    expect(sent.map(({ name }) => name)).toEqual(['a.png'])
  })

  it('which an upload is told first keeps the file until there is another', async () => {
    const { attachments, chat } = await stores()
    const { begin, enter } = await import('@/stores/user')
    begin()
    attachments.add([picked('a.png', { file: new File(['x'], 'a.png', { type: 'image/png' }) }), picked('b.md')])
    sent[0]?.take({ code: -1, msg: 'log in' })
    sent[1]?.take({ code: -1, msg: 'log in' })
    await nextTick()
    expect(attachments.items.value).toEqual([])
    chat.comeBack()
    expect(sent.length).toBe(2)
    enter({ token: 'new', user: { id: 7 } as never })
    expect(attachments.items.value.map(({ state }) => state)).toEqual(['waiting', 'waiting'])
    chat.comeBack()
    expect(sent.slice(2).map(({ name }) => name)).toEqual(['a.png', 'b.md'])
  })

  it('is not one that somebody ended', async () => {
    const { attachments } = await stores()
    const { enter, leave } = await import('@/stores/user')
    attachments.add([picked('a.png')])
    await leave()
    enter({ token: 'another', user: { id: 8 } as never })
    attachments.uploadWaiting()
    expect([attachments.items.value, sent.length]).toEqual([[], 1])
  })

  it('brings no file up again that a question has which is being edited', async () => {
    const { attachments, chat } = await stores()
    const { forgetUser } = await import('@/stores/user')
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    attachments.take()
    chat.edit({ ...message, attachments: [file(id)] } as never)
    forgetUser(true)
    attachments.uploadWaiting()
    logIn((await stores()).user, (await stores()).around, 'new')
    attachments.uploadWaiting()
    expect(sent.length).toBe(1)
  })
})

describe('an upload that ends elsewhere', () => {
  it('is remembered where it was begun', async () => {
    const { attachments } = await stores()
    attachments.add([picked('a.png')])
    attachments.turnTo('c-1')
    const id = accept(0)
    await vi.waitFor(() => expect(kept.get('banyan.attached.7/new')).toContain(id))
    expect(kept.has('banyan.attached.7/c-1')).toBe(false)
    vi.resetModules()
    expect((await stores()).attachments.items.value.map(({ kept: known }) => known?.id)).toEqual([id])
  })

  it('beside one that is edited is remembered for the conversation', async () => {
    const { attachments, chat } = await stores()
    attachments.add([picked('a.png')])
    chat.edit(message as never)
    const id = accept(0)
    await vi.waitFor(() => expect(kept.get('banyan.attached.7/new')).toContain(id))
  })
})

describe('what somebody left whose log-in ended', () => {
  /** A (7) has a draft and two files in a conversation, one of them on its way, and another draft for a new one. */
  async function left() {
    const all = await stores()
    const { attachments, chat } = all
    chat.keepDraft('a new one of A’s')
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    chat.keepDraft('A’s words')
    attachments.add([picked('a.png'), picked('b.md')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.items.value[0]?.state).toBe('kept'))
    const { enter, forgetUser } = await import('@/stores/user')
    forgetUser(true)
    return { ...all, id, enter }
  }

  it('is neither shown nor sent by whoever comes next, who begins with their own', async () => {
    const { attachments, chat, enter } = await left()
    expect([chat.chat.id, chat.chat.draft, attachments.items.value]).toEqual(['', '', []])
    enter({ token: 'b', user: { id: 8 } as never })
    chat.comeBack()
    sent[1]?.take({ code: -1, msg: 'log in' })
    await nextTick()
    attachments.uploadWaiting()
    expect([chat.chat.id, chat.chat.draft, attachments.items.value, sent.length]).toEqual(['', '', [], 2])
    attachments.turnTo('c-1')
    expect(attachments.items.value).toEqual([])
    vi.resetModules()
    const again = await stores()
    expect([again.user.owner, again.chat.chat.draft, again.attachments.items.value]).toEqual(['8', '', []])
  })

  it('is there where it was when they come back, after another too', async () => {
    const { attachments, chat, enter, id } = await left()
    enter({ token: 'b', user: { id: 8 } as never })
    enter({ token: 'a', user: { id: 7 } as never })
    expect(chat.chat.draft).toBe('a new one of A’s')
    sent[1]?.lose()
    await chat.open('c-1')
    expect([chat.chat.draft, attachments.items.value.map(({ name, state }) => [name, state])]).toEqual([
      'A’s words',
      [['a.png', 'kept'], ['b.md', 'failed']],
    ])
    expect(attachments.items.value[0]?.kept?.id).toBe(id)
  })

  it('goes on where they were, at once when they come back themselves', async () => {
    const { chat, enter } = await left()
    chat.comeBack()
    expect(chat.chat.id).toBe('')
    enter({ token: 'a', user: { id: 7 } as never })
    chat.comeBack()
    expect([chat.chat.id, chat.chat.draft, chat.chat.detour]).toEqual(['c-1', 'A’s words', { at: 'nowhere' }])
  })

  it('is gone from the device when they log out', async () => {
    const { attachments, chat, enter } = await left()
    enter({ token: 'b', user: { id: 8 } as never })
    chat.keepDraft('B’s words')
    enter({ token: 'a', user: { id: 7 } as never })
    const { leave } = await import('@/stores/user')
    await leave()
    expect([...kept.keys()].filter((name) => /draft|attached|detour/.test(name))).toEqual(['banyan.draft.8/new'])
    expect([chat.chat.draft, attachments.items.value]).toEqual(['', []])
  })

  it('takes in what was begun before anybody was there', async () => {
    const { attachments, chat, enter } = await left()
    chat.keepDraft('nobody’s words')
    attachments.add([picked('c.md')])
    enter({ token: 'b', user: { id: 8 } as never })
    chat.comeBack()
    expect([chat.chat.draft, attachments.items.value.map(({ name }) => name)]).toEqual(['nobody’s words', ['c.md']])
    expect(sent.map(({ name }) => name)).toEqual(['a.png', 'b.md', 'c.md'])
    expect([...kept.keys()].filter((name) => name.startsWith('banyan.draft.'))).toEqual([
      'banyan.draft.7/new',
      'banyan.draft.7/c-1',
      'banyan.draft.8/new',
    ])
  })

  it('was a guest’s: who signs in goes on with it, and uploads it as theirs', async () => {
    const { attachments, chat, user } = await stores()
    const { enter } = await import('@/stores/user')
    user.me = { id: 7, is_guest: true } as never
    chat.keepDraft('a guest’s words')
    attachments.add([picked('a.png')])
    accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    enter({ token: 'b', user: { id: 8 } as never })
    chat.comeBack()
    expect([chat.chat.draft, sent.map(({ name }) => name)]).toEqual(['a guest’s words', ['a.png', 'a.png']])
    expect(attachments.items.value.map(({ state }) => state)).toEqual(['sending'])
  })

  it('is known by whose it is as soon as the server says so', async () => {
    const { attachments, chat, user } = await stores()
    user.owner = ''
    Object.assign(chat.chat, { id: 'c-1' })
    attachments.turnTo('c-1')
    chat.keepDraft('typed')
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    Object.assign(uni, {
      request: (options: { success(result: object): void }) =>
        options.success({ data: { code: 1, msg: 'ok', data: { id: 7 } }, statusCode: 200 }),
    })
    await (await import('@/stores/user')).refreshUser()
    expect([chat.chat.draft, attachments.items.value.map(({ kept: known }) => known?.id)]).toEqual(['typed', [id]])
    expect(kept.get('banyan.draft.7/c-1')).toBe('typed')
    expect([kept.has('banyan.draft.c-1'), kept.has('banyan.attached.c-1')]).toEqual([false, false])
  })
})

describe('a question that is refused while another is written', () => {
  beforeEach(async () => {
    const { site } = await import('@/stores/site')
    site.told = { purchases: { hidden: false } } as never
  })

  it.each([-1, 101])('stands above it (%i), with the files of both', async (code) => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    chat.keepDraft('first')
    chat.send()
    chat.keepDraft('second')
    attachments.add([picked('b.md')])
    refuse(code)
    await vi.waitFor(() => expect(chat.chat.live).toBe(undefined))
    expect([chat.chat.draft, kept.get('banyan.draft.7/c-1')]).toEqual(['first\n\nsecond', 'first\n\nsecond'])
    expect(attachments.items.value.map(({ kept: known, name }) => known?.id ?? name)).toEqual([id, 'b.md'])
  })

  it('was an edit: it joins what waited beneath it', async () => {
    const { chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    chat.keepDraft('second')
    chat.edit({ ...message, attachments: [] } as never)
    chat.send('edited')
    refuse(101)
    await vi.waitFor(() => expect(chat.chat.live).toBe(undefined))
    expect(chat.chat.draft).toBe('edited\n\nsecond')
  })

  it('and before anybody has logged in', async () => {
    const { chat, user, around } = await stores()
    logIn(user, around, '')
    chat.keepDraft('typed')
    chat.send('a suggestion')
    expect([chat.chat.draft, kept.get('banyan.draft.new')]).toEqual(['a suggestion\n\ntyped', 'a suggestion\n\ntyped'])
  })

  it('was on its way still when the log-in ended: it comes back where it was asked', async () => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    chat.send('first')
    const { enter, forgetUser } = await import('@/stores/user')
    forgetUser(true)
    enter({ token: 'a', user: { id: 7 } as never })
    chat.comeBack()
    expect([chat.chat.id, chat.chat.draft]).toEqual(['c-1', 'first'])
  })

  it('is an edit that was not sent yet when the log-in ended', async () => {
    const { chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    chat.edit(message as never)
    chat.keepDraft('one, better')
    const { forgetUser } = await import('@/stores/user')
    forgetUser(true)
    expect(kept.get('banyan.draft.7/c-1')).toBe('one, better')
  })

  it('is typed still while a suggestion is asked', async () => {
    const { chat } = await stores()
    chat.keepDraft('typed')
    chat.send('a suggestion')
    expect([chat.chat.draft, bodies[0]?.message]).toEqual(['typed', 'a suggestion'])
  })
})

describe('a question that a log-in came between', () => {
  it('comes back with its files in the conversation where it was asked, over a reload too', async () => {
    const { attachments, chat } = await stores()
    Object.assign(chat.chat, { id: 'c-1', messages: [message] })
    attachments.turnTo('c-1')
    attachments.add([picked('a.png')])
    const id = accept(0)
    await vi.waitFor(() => expect(attachments.isReady.value).toBe(true))
    chat.send('what is this?')
    refuse(-1)
    await vi.waitFor(() => expect(chat.chat.detour.at).toBe('login'))
    ;(await import('@/stores/user')).forgetUser(true)
    expect([chat.chat.id, chat.chat.draft, attachments.items.value]).toEqual(['', '', []])
    vi.resetModules()
    const again = await stores()
    ;(await import('@/stores/user')).enter({ token: 'new', user: { id: 7 } as never })
    again.chat.comeBack()
    expect([again.chat.chat.id, again.chat.chat.draft]).toEqual(['c-1', 'what is this?'])
    expect(again.attachments.items.value.map(({ kept: known }) => known?.id)).toEqual([id])
  })
})
