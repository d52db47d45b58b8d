/**
 * The mini-program's way: `wx.request` with chunks.
 *
 * Some versions deliver no chunk and hand over the whole reply at the end, some deliver neither: `whole` asks for the
 * former on purpose, as the last resort.
 */

import { FrameDecoder } from '@/protocol/frames'
import { type Ask, type Carrier, type Connection, Line, type Listener, type Where, headersOf } from './carrier'

/** The part of `wx` that is used, so that tests can run it on a small runtime of their own. */
export interface WxRequest {
  request(options: {
    url: string
    method: 'POST'
    data: string
    header: Record<string, string>
    enableChunked: boolean
    responseType: 'arraybuffer'
    timeout: number
    success(result: { data?: unknown; statusCode: number }): void
    fail(failure: { errMsg?: string }): void
  }): { abort(): void; onChunkReceived?(take: (chunk: { data: unknown }) => void): void } | undefined
}

const LONGEST = 10 * 60 * 1000 // what WeChat's own versions shorten to 60 s, as they like

export class WeChatCarrier implements Carrier {
  readonly name: string

  constructor(
    private readonly wx: WxRequest,
    private readonly where: () => Where,
    private readonly whole = false,
  ) {
    this.name = whole ? 'whole' : 'chunks'
  }

  open(ask: Ask, listener: Listener): Connection {
    const line = new Line(listener)
    const decoder = new FrameDecoder()
    const where = this.where()
    let seen = false
    const take = (data: unknown): void => {
      const bytes = bytesOf(data)
      if (bytes === undefined || bytes.length === 0) return
      seen = true
      line.tell(decoder.push(bytes))
    }
    const task = this.wx.request({
      url: `${where.server}/api/chat/stream?is_wxapp=1${where.appId ? `&appid=${where.appId}` : ''}`,
      method: 'POST',
      data: JSON.stringify(ask),
      header: headersOf(where),
      enableChunked: !this.whole,
      responseType: 'arraybuffer',
      timeout: LONGEST,
      success: (result) => {
        // A version without chunks has everything here; one with chunks repeats nothing.
        if (!seen) take(result.data)
        line.tell(decoder.end())
        line.close(seen ? 'done' : 'blind')
      },
      fail: () => line.close('cut'),
    })
    if (!this.whole) task?.onChunkReceived?.((chunk) => take(chunk.data))
    return {
      leave: () => {
        line.leave()
        task?.abort()
      },
    }
  }
}

/** Bytes of what a callback brings: devices bring an ArrayBuffer, the developer tool has brought views and texts. */
function bytesOf(data: unknown): Uint8Array | undefined {
  if (data instanceof Uint8Array) return data
  if (Object.prototype.toString.call(data) === '[object ArrayBuffer]') return new Uint8Array(data as ArrayBuffer)
  // Frames are ASCII.
  if (typeof data === 'string') return Uint8Array.from(data, (unit) => unit.charCodeAt(0) & 0xff)
  return undefined
}
