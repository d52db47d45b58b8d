/** The page's way: `fetch`, and its body read as it comes. */

import { SseDecoder } from '@/protocol/sse'
import { type Ask, type Carrier, type Connection, Line, type Listener, type Where, headersOf } from './carrier'

export class FetchCarrier implements Carrier {
  readonly name = 'fetch'

  constructor(private readonly where: () => Where) {}

  static isSupported(): boolean {
    return (
      typeof fetch === 'function' && typeof AbortController === 'function' && typeof ReadableStream === 'function'
    )
  }

  open(ask: Ask, listener: Listener): Connection {
    const aborter = new AbortController()
    const line = new Line(listener)
    void this.read(ask, line, aborter.signal).catch(() => line.close('cut'))
    return {
      leave: () => {
        line.leave()
        aborter.abort()
      },
    }
  }

  private async read(ask: Ask, line: Line, signal: AbortSignal): Promise<void> {
    const where = this.where()
    const response = await fetch(`${where.server}/api/chat/stream`, {
      method: 'POST',
      headers: headersOf(where),
      body: JSON.stringify(ask),
      signal,
      cache: 'no-store',
    })
    if (!response.ok) throw new Error(String(response.status))
    if (response.body === null) return line.close('blind')
    const messageId = response.headers.get('X-Message-Id') ?? ''
    const conversationId = response.headers.get('X-Conversation-Id') ?? ''
    if (messageId !== '') line.tell([{ kind: 'started', messageId, conversationId }])
    const decoder = new SseDecoder()
    const reader = response.body.getReader()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      line.tell(decoder.push(value))
    }
    line.tell(decoder.end())
    line.close('done')
  }
}
