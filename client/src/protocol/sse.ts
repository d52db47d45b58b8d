import { type Decoder, type StreamEvent, objectOf, refusalOf, type Receipt } from './events'
import { LineBuffer } from './lines'

/** The H5 framing: OpenAI's chunks as server-sent events, with `receipt` and `error` events of ours. */
export class SseDecoder implements Decoder {
  private readonly lines = new LineBuffer()
  private event = ''
  private data: string[] = []
  private over = false

  push(bytes: Uint8Array): StreamEvent[] {
    return this.lines.push(bytes).flatMap((line) => this.take(line))
  }

  /** An event that the body's end cut off is no event; the standard says so too. */
  end(): StreamEvent[] {
    return []
  }

  private take(line: string): StreamEvent[] {
    if (this.over) return []
    if (line === '') return this.dispatch()
    if (line.startsWith(':')) return [{ kind: 'heartbeat' }]
    const colon = line.indexOf(':')
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1))
    if (name === 'event') this.event = value
    if (name === 'data') this.data.push(value)
    return []
  }

  private dispatch(): StreamEvent[] {
    const [event, data] = [this.event, this.data.join('\n')]
    const isEmpty = this.data.length === 0
    this.event = ''
    this.data = []
    if (isEmpty) return []
    if (event === 'error') {
      this.over = true
      return [{ kind: 'refusal', refusal: refusalOf(objectOf(data) ?? {}) }]
    }
    if (event === 'receipt') {
      const receipt = objectOf(data)
      return receipt ? [{ kind: 'receipt', receipt: receipt as unknown as Receipt }] : []
    }
    if (data === '[DONE]') {
      this.over = true
      return [{ kind: 'end' }]
    }
    return textsOf(objectOf(data))
  }
}

/** The texts of a chunk. Providers name the reasoning in two ways; a chunk without either tells that all is well. */
function textsOf(chunk: Record<string, unknown> | undefined): StreamEvent[] {
  const choices = chunk?.choices
  const first: unknown = Array.isArray(choices) ? choices[0] : undefined
  const delta = ((first as { delta?: unknown } | undefined)?.delta ?? {}) as Record<string, unknown>
  const thinking = delta.reasoning_content ?? delta.reasoning
  const events: StreamEvent[] = []
  if (typeof thinking === 'string' && thinking !== '') events.push({ kind: 'thinking', text: thinking })
  if (typeof delta.content === 'string' && delta.content !== '') events.push({ kind: 'text', text: delta.content })
  return events.length > 0 ? events : [{ kind: 'heartbeat' }]
}
