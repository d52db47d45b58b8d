import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import type { Answer } from '@/protocol/answer'
import type { Refusal } from '@/protocol/events'
import type { Ask, Carrier, Ending, Where } from '@/transport/carrier'
import { FetchCarrier } from '@/transport/fetch'
import { type Clock, Session } from '@/transport/session'
import { WeChatCarrier, type WxRequest } from '@/transport/wechat'
import { wxOver } from './wx'

const LOST: Refusal = { code: 0, msg: 'lost', type: 'network', scope: '', action: '', reset_at: null, request_id: '' }
/** Pauses are skipped; a silence is over when a test says so, however long this machine stands still. */
class Hasty implements Clock {
  private silences: (() => void)[] = []

  after(ms: number, then: () => void): () => void {
    if (ms > 10_000) {
      this.silences = [then]
      return () => (this.silences = [])
    }
    const timer = setTimeout(then, 1)
    return () => clearTimeout(timer)
  }

  passSilence(): void {
    for (const then of this.silences) then()
  }
}
const TEXT = '你好, a stream that is cut 😀 and goes on — 到最后一个字。'.repeat(3)
const POINTS = Array.from(TEXT)

type Script = (ask: Ask, response: ServerResponse, isFrames: boolean) => void

let server: Server | undefined
const asks: Ask[] = []
/** What the reader has so far, and who waits for it: a connection is cut when its bytes were read, not before. */
let taken = 0
let waiting: { for: number; then: () => void }[] = []

function onceTaken(offset: number, then: () => void): void {
  waiting.push({ for: offset, then })
  tell(taken)
}

function tell(offset: number): void {
  taken = offset
  const due = waiting.filter((one) => one.for <= taken)
  waiting = waiting.filter((one) => one.for > taken)
  for (const { then } of due) setTimeout(then, 0)
}

afterEach(() => {
  taken = 0
  waiting = []
  server?.closeAllConnections()
  server?.close()
  asks.length = 0
})

async function serve(script: Script): Promise<() => Where> {
  server = createServer((request, response) => {
    let body = ''
    request.setEncoding('utf8')
    request.on('data', (more: string) => (body += more))
    request.on('end', () => {
      const ask = JSON.parse(body) as Ask
      asks.push(ask)
      const isFrames = (request.url ?? '').includes('is_wxapp=1')
      response.writeHead(200, {
        'Content-Type': 'text/event-stream',
        ...(isFrames ? {} : { 'X-Message-Id': 'm1', 'X-Conversation-Id': 'c1' }),
      })
      script(ask, response, isFrames)
    })
  })
  await new Promise<void>((ready) => server?.listen(0, '127.0.0.1', ready))
  const { port } = server.address() as AddressInfo
  return () => ({ server: `http://127.0.0.1:${port}`, token: 'bny_x', appId: '', language: 'en' })
}

const frame = (value: object): string => `success: ${JSON.stringify(value)}\r\n`
const say = (isFrames: boolean, content: string): string =>
  isFrames ? frame({ content }) : `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`
const begin = (isFrames: boolean): string =>
  isFrames ? frame({ content: '', message_id: 'm1', conversation_id: 'c1' }) : ': hello\n\n'
const finish = (isFrames: boolean): string => (isFrames ? '0\r\n\r\n' : 'data: [DONE]\n\n')

function whole(ways: Carrier[], clock: Clock = new Hasty()): Promise<Answer> {
  return new Promise((resolve) => {
    const session: Session = new Session({
      ways,
      ask: { message: 'q', client_msg_id: 'k1' },
      clock,
      lost: LOST,
      waiting: () => undefined,
      changed: (answer) => {
        tell(answer.offset)
        if (answer.phase === 'whole' || answer.phase === 'refused') resolve(answer)
      },
    })
    void session
  })
}

const carriers: [string, (where: () => Where) => Carrier][] = [
  ['fetch', (where) => new FetchCarrier(where)],
  ['wx chunks as they come', (where) => new WeChatCarrier(wxOver({}), where)],
  ['wx chunks of one byte', (where) => new WeChatCarrier(wxOver({ bytes: 1 }), where)],
]

describe.each(carriers)('by %s', (_name, carrier) => {
  it('an answer that is cut at every few characters comes whole', async () => {
    const where = await serve((ask, response, isFrames) => {
      const from = ask.offset ?? 0
      const part = POINTS.slice(from, from + 7).join('')
      response.write(begin(isFrames) + say(isFrames, part))
      if (from + 7 >= POINTS.length) response.end(finish(isFrames))
      else onceTaken(from + 7, () => response.destroy())
    })
    const answer = await whole([carrier(where)])
    expect([answer.text, answer.phase, answer.messageId]).toEqual([TEXT, 'whole', 'm1'])
    const rest = [...POINTS.keys()].filter((at) => at > 0 && at % 7 === 0)
    expect(asks).toEqual([
      { message: 'q', client_msg_id: 'k1' },
      ...rest.map((offset) => ({ message_id: 'm1', offset })),
    ])
  })

  it('a question of which nothing came back goes again under its key', async () => {
    let times = 0
    const where = await serve((_ask, response, isFrames) => {
      times += 1
      if (times < 3) response.destroy()
      else response.end(begin(isFrames) + say(isFrames, 'ok') + finish(isFrames))
    })
    expect((await whole([carrier(where)])).text).toBe('ok')
    expect(asks.map((ask) => ask.client_msg_id ?? ask.message_id)).toEqual(['k1', 'k1', 'k1'])
  })

  it('a connection that is silent for too long is replaced', async () => {
    const where = await serve((ask, response, isFrames) => {
      response.write(begin(isFrames) + say(isFrames, 'begun'.slice(ask.offset ?? 0, ask.offset ? 5 : 2)))
      if (ask.offset) response.end(finish(isFrames))
      else onceTaken(2, () => clock.passSilence())
    })
    const clock = new Hasty()
    expect((await whole([carrier(where)], clock)).text).toBe('begun')
    expect(asks.filter(({ offset }) => offset)).toEqual([{ message_id: 'm1', offset: 2 }])
  })

  it('a refusal ends it', async () => {
    const body = { ...LOST, code: 101, msg: '余额不足' }
    const where = await serve((_ask, response, isFrames) => {
      response.end(`event: error\ndata: ${JSON.stringify(body)}${isFrames ? '\r\n' : '\n\n'}`)
    })
    const answer = await whole([carrier(where)])
    expect([answer.phase, answer.refusal]).toEqual(['refused', body])
  })
})

describe('a mini-program', () => {
  const all = async (wx: WxRequest): Promise<[Answer, string[]]> => {
    const used: string[] = []
    const where = await serve((_ask, response) => {
      response.end(begin(true) + say(true, TEXT) + finish(true))
    })
    const noted = (carrier: Carrier): Carrier => ({
      name: carrier.name,
      open: (ask, listener) => {
        used.push(carrier.name)
        return carrier.open(ask, listener)
      },
    })
    const blind: Carrier = {
      name: 'socket',
      open: (_ask, listener) => {
        setTimeout(() => listener.closed('blind'), 1)
        return { leave: () => undefined }
      },
    }
    const ways = [new WeChatCarrier(wx, where), blind, new WeChatCarrier(wx, where, true)].map(noted)
    return [await whole(ways), used]
  }

  it('whose version hands over everything at the end is served by it', async () => {
    const [answer, used] = await all(wxOver({ chunks: 'none' }))
    expect([answer.text, used]).toEqual([TEXT, ['chunks']])
  })

  it('whose version tells nothing with chunks falls back, to a plain reply at last', async () => {
    const [answer, used] = await all(wxOver({ chunks: 'blind' }))
    expect([answer.text, used]).toEqual([TEXT, ['chunks', 'socket', 'whole']])
  })
})

describe('an answer that nobody brings is given up after eight connections', () => {
  const opened: string[] = []
  const dead = (name: string, how: Ending | 'silent'): Carrier => ({
    name,
    open: (_ask, listener) => {
      opened.push(name)
      setTimeout(() => (how === 'silent' ? clock.passSilence() : listener.closed(how)), 0)
      return { leave: () => undefined }
    },
  })
  const clock = new Hasty()

  it.each([
    [['cut'], 'a*8'],
    [['blind'], 'a*8'],
    [['silent'], 'a*8'],
    [['cut', 'cut'], 'a*3 b a b a b'],
    [['cut', 'cut', 'cut'], 'a*3 b c a b c'],
    // Those that tell nothing here are no tries where another does.
    [['blind', 'cut'], 'a b*3 a b a b a b a b a b'],
  ] as const)('%j: %s', async (hows, expected) => {
    opened.length = 0
    const answer = await whole(hows.map((how, at) => dead('abc'.charAt(at), how)), clock)
    expect([answer.phase, answer.refusal]).toEqual(['refused', LOST])
    const wanted = expected.split(' ').flatMap((one) => Array<string>(Number(one.split('*')[1] ?? 1)).fill(one.charAt(0)))
    expect(opened).toEqual(wanted)
  })
})

describe('reasoning that a cut came into', () => {
  const think = (text: string): string => `data: ${JSON.stringify({ choices: [{ delta: { reasoning_content: text } }] })}\n\n`

  it('is told anew before the answer has begun, and is there once', async () => {
    const where = await serve((ask, response) => {
      response.write(begin(false))
      if (ask.message_id === undefined) {
        response.write(think('first, '))
        setTimeout(() => response.destroy(), 20)
        return
      }
      response.end([think('first, '), think('second'), say(false, 'yes'), finish(false)].join(''))
    })
    const answer = await whole([new FetchCarrier(where)])
    expect([answer.thinking, answer.text, asks.length]).toEqual(['first, second', 'yes', 2])
  })

  it('stays where the answer goes on', async () => {
    const where = await serve((ask, response) => {
      response.write(begin(false))
      if (ask.message_id === undefined) {
        response.write(think('hm') + say(false, 'ye'))
        setTimeout(() => response.destroy(), 20)
        return
      }
      response.end(say(false, 's') + finish(false))
    })
    const answer = await whole([new FetchCarrier(where)])
    expect([answer.thinking, answer.text]).toEqual(['hm', 'yes'])
  })
})
