import { describe, expect, it } from 'vitest'
import type { Decoder, StreamEvent } from '@/protocol/events'
import { FrameDecoder } from '@/protocol/frames'
import { LineBuffer } from '@/protocol/lines'
import { SseDecoder } from '@/protocol/sse'
import { Utf8Decoder } from '@/protocol/utf8'
import { bytesOf } from './bytes'

const RECEIPT = { model: 'm', charge: '12', reason: 'stop' }
const REFUSAL = {
  code: 101,
  msg: '余额不足',
  type: 'balance_short',
  scope: 'user',
  action: 'recharge',
  reset_at: null,
  request_id: 'r1',
}

/** As the server writes: ASCII JSON, with the second letter of the two words escaped. */
const ascii = (value: unknown): string =>
  JSON.stringify(value)
    .replace(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .replace(/e(r)(?=ror)/g, 'e\\u0072')
    .replace(/s(u)(?=ccess)/g, 's\\u0075')
const frame = (value: object): string => `success: ${ascii(value)}\r\n`

const ANSWER =
  frame({ content: '', message_id: 'm1', conversation_id: 'c1' }) +
  frame({ content: '你好, 与rror success 😀' }) +
  frame({ content: '' }) +
  frame({ content: '0\r\n\r\n"event: error"\n' }) +
  frame({ content: '', receipt: RECEIPT }) +
  '0\r\n\r\n'
const TOLD: StreamEvent[] = [
  { kind: 'started', messageId: 'm1', conversationId: 'c1' },
  { kind: 'text', text: '你好, 与rror success 😀' },
  { kind: 'heartbeat' },
  { kind: 'text', text: '0\r\n\r\n"event: error"\n' },
  { kind: 'receipt', receipt: RECEIPT as never },
  { kind: 'end' },
]
const chunk = (delta: object): string => `data: ${JSON.stringify({ choices: [{ index: 0, delta }] })}\n\n`
const STREAM =
  chunk({ role: 'assistant', content: '' }) +
  ': ping\n\n' +
  chunk({ reasoning_content: '想一想 🤔' }) +
  chunk({ content: '你好 😀' }) +
  chunk({ content: '[DONE]\n\nevent: error' }) +
  `data: {"choices":[],"usage":{}}\r\n\r\n` +
  `event: receipt\ndata: ${JSON.stringify(RECEIPT)}\n\n` +
  'data: [DONE]\n\n'
const STREAMED: StreamEvent[] = [
  { kind: 'heartbeat' },
  { kind: 'heartbeat' },
  { kind: 'thinking', text: '想一想 🤔' },
  { kind: 'text', text: '你好 😀' },
  { kind: 'text', text: '[DONE]\n\nevent: error' },
  { kind: 'heartbeat' },
  { kind: 'receipt', receipt: RECEIPT as never },
  { kind: 'end' },
]

function decode(decoder: Decoder, pieces: Uint8Array[]): StreamEvent[] {
  return [...pieces.flatMap((piece) => decoder.push(piece)), ...decoder.end()]
}

describe.each([
  ['mini-program frames', () => new FrameDecoder(), ANSWER, TOLD],
  ['H5 events', () => new SseDecoder(), STREAM, STREAMED],
] as const)('%s', (_name, make, body, told) => {
  const bytes = bytesOf(body)

  it('are the same in one piece and in pieces of every size', () => {
    for (let size = 1; size <= bytes.length; size += 1) {
      const pieces: Uint8Array[] = []
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size))
      expect(decode(make(), pieces)).toEqual(told)
    }
  })

  it('are the same cut in two at every byte, an empty piece between', () => {
    for (let at = 0; at <= bytes.length; at += 1) {
      expect(decode(make(), [bytes.subarray(0, at), new Uint8Array(), bytes.subarray(at)])).toEqual(told)
    }
  })

  it('end once: what follows the end is nobody’s', () => {
    expect(decode(make(), [bytes, bytes])).toEqual(told)
  })

  it('that a body’s end cuts off anywhere tell a part, never anything else, and no end', () => {
    for (let at = 0; at < bytes.length - 4; at += 1) {
      const events = decode(make(), [bytes.subarray(0, at)])
      expect(events).toEqual(told.slice(0, events.length))
      expect(events.length).toBeLessThan(told.length)
    }
  })
})

describe('refusals', () => {
  it.each([
    ['mini-program', () => new FrameDecoder(), `event: error\ndata: ${ascii(REFUSAL)}\r\n`],
    ['H5', () => new SseDecoder(), `event: error\ndata: ${JSON.stringify(REFUSAL)}\n\n`],
  ] as const)('in %s framing come in any split, and end the answer', (_name, make, body) => {
    const bytes = bytesOf(body)
    for (let at = 0; at <= bytes.length; at += 1) {
      expect(decode(make(), [bytes.subarray(0, at), bytes.subarray(at), bytesOf(frame({ content: 'late' }))])).toEqual([
        { kind: 'refusal', refusal: REFUSAL },
      ])
    }
  })

  it('without a line end at the body’s end are told by frames', () => {
    const events = decode(new FrameDecoder(), [bytesOf(`event: error\ndata: ${ascii(REFUSAL)}`)])
    expect(events).toEqual([{ kind: 'refusal', refusal: REFUSAL }])
  })

  it('of which nothing is readable are refusals all the same', () => {
    const empty = { code: 0, msg: '', type: '', scope: '', action: '', reset_at: null, request_id: '' }
    expect(decode(new FrameDecoder(), [bytesOf('event: error\ndata: {"co\r\n')])).toEqual([
      { kind: 'refusal', refusal: empty },
    ])
  })
})

describe('what is not ours', () => {
  it('is passed over', () => {
    expect(decode(new FrameDecoder(), [bytesOf('\r\n: ping\r\nsuccess: {"cont\r\nsuccess: [1]\r\ndata: {}\r\n')])).toEqual([])
    expect(decode(new SseDecoder(), [bytesOf('id: 1\nretry: 5\n\nevent: receipt\ndata: 5\n\n')])).toEqual([])
  })

  it('in a chunk is no text', () => {
    const body = 'data: {"choices":[{"delta":{"content":null}}]}\n\ndata: nonsense\n\n'
    expect(decode(new SseDecoder(), [bytesOf(body)])).toEqual([{ kind: 'heartbeat' }, { kind: 'heartbeat' }])
  })
})

describe('UTF-8', () => {
  it('decodes every kind of character in every split, as TextDecoder does', () => {
    const text = 'a\u007f\u0080ß\u07ff\u0800你\ud7ff\ue000\uffff😀\u{10ffff}'
    const bytes = bytesOf(text)
    for (let at = 0; at <= bytes.length; at += 1) {
      const decoder = new Utf8Decoder()
      expect(decoder.push(bytes.subarray(0, at)) + decoder.push(bytes.subarray(at)) + decoder.end()).toBe(text)
    }
  })

  it('makes of broken bytes what TextDecoder makes of them', () => {
    const broken = [[0x80], [0xc0, 0x80], [0xe4, 0xbd], [0xe4, 0x41], [0xed, 0xa0, 0x80], [0xf5, 0x80], [0xf0, 0x9f, 0x98, 0x41]]
    for (const bytes of broken) {
      const decoder = new Utf8Decoder()
      const text = bytes.map((byte) => decoder.push(Uint8Array.of(byte))).join('') + decoder.end()
      expect(text).toBe(new TextDecoder().decode(Uint8Array.from(bytes)))
    }
  })
})

describe('lines', () => {
  it('end with LF or CRLF, and the last one with the text', () => {
    const lines = new LineBuffer()
    expect(lines.push(bytesOf('a\r'))).toEqual([])
    expect(lines.push(bytesOf('\nb\n\nc'))).toEqual(['a', 'b', ''])
    expect(lines.end()).toEqual(['c'])
    expect(lines.end()).toEqual([])
  })
})
