/** What an answer is made of, whichever framing or transport it comes by. */

/** Amounts are texts of micro-yuan: a 64-bit integer does not fit into a number here. */
export interface Receipt {
  model: string
  prompt_tokens: number
  cached_tokens: number
  completion_tokens: number
  usage_source: string
  unit_prices: Record<string, number | string>
  charge: string
  funding: { free: boolean; plan?: string | null; gift: string; cash: string }
  balance: string
  reason: string
}

/** The one error object of the API, in frames, events, JSON bodies and over the WebSocket. */
export interface Refusal {
  code: number
  msg: string
  type: string
  scope: string
  action: string
  reset_at: string | null
  request_id: string
}

export type StreamEvent =
  | { kind: 'started'; messageId: string; conversationId: string }
  | { kind: 'text'; text: string }
  | { kind: 'thinking'; text: string }
  | { kind: 'heartbeat' }
  | { kind: 'receipt'; receipt: Receipt }
  | { kind: 'end' }
  | { kind: 'refusal'; refusal: Refusal }

/** Bytes of one response go in, events come out. `end` is for what the body ended with. */
export interface Decoder {
  push(bytes: Uint8Array): StreamEvent[]
  end(): StreamEvent[]
}

/** Returns a parsed JSON object, or undefined for anything else: a frame that we do not know is passed over. */
export function objectOf(json: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

/** Returns a refusal with every field, whatever was left out; `fallback` is the text where there is none. */
export function refusalOf(given: Record<string, unknown>, fallback = ''): Refusal {
  const text = (name: string): string => (typeof given[name] === 'string' ? given[name] : '')
  return {
    code: typeof given.code === 'number' ? given.code : 0,
    msg: text('msg') || fallback,
    type: text('type'),
    scope: text('scope'),
    action: text('action'),
    reset_at: text('reset_at') || null,
    request_id: text('request_id'),
  }
}
