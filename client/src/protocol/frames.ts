import { type Decoder, type StreamEvent, objectOf, refusalOf, type Receipt } from './events'
import { LineBuffer } from './lines'

const FRAME = 'success: '
const DATA = 'data: '

/** The mini-program framing: `success: {…}` lines, an error in two lines, and `0` as the end. */
export class FrameDecoder implements Decoder {
  private readonly lines = new LineBuffer()
  private failing = false
  private over = false

  push(bytes: Uint8Array): StreamEvent[] {
    return this.lines.push(bytes).flatMap((line) => this.take(line))
  }

  end(): StreamEvent[] {
    return this.lines.end().flatMap((line) => this.take(line))
  }

  private take(line: string): StreamEvent[] {
    if (this.over) return []
    if (line.startsWith(FRAME)) return eventsOf(objectOf(line.slice(FRAME.length)))
    if (line === 'event: error') {
      this.failing = true
    } else if (line === '0') {
      this.over = true
      return [{ kind: 'end' }]
    } else if (this.failing && line.startsWith(DATA)) {
      this.over = true
      return [{ kind: 'refusal', refusal: refusalOf(objectOf(line.slice(DATA.length)) ?? {}) }]
    }
    return []
  }
}

function eventsOf(frame: Record<string, unknown> | undefined): StreamEvent[] {
  if (frame === undefined) return []
  const events: StreamEvent[] = []
  if (typeof frame.message_id === 'string') {
    const conversationId = typeof frame.conversation_id === 'string' ? frame.conversation_id : ''
    events.push({ kind: 'started', messageId: frame.message_id, conversationId })
  }
  if (typeof frame.content === 'string' && frame.content !== '') events.push({ kind: 'text', text: frame.content })
  if (typeof frame.receipt === 'object' && frame.receipt !== null) {
    events.push({ kind: 'receipt', receipt: frame.receipt as Receipt })
  }
  return events.length > 0 ? events : [{ kind: 'heartbeat' }]
}
