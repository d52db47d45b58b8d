import { type StreamEvent, objectOf, refusalOf, type Receipt } from './events'

/** Returns what a message of `/ws/chat` tells; undefined for what is not about an answer. */
export function socketEvent(json: string): StreamEvent | undefined {
  const told = objectOf(json)
  const text = (name: string): string => (typeof told?.[name] === 'string' ? told[name] : '')
  switch (told?.event) {
    case 'started':
      return { kind: 'started', messageId: text('message_id'), conversationId: text('conversation_id') }
    case 'text':
      return { kind: 'text', text: text('content') }
    case 'heartbeat':
      return { kind: 'heartbeat' }
    case 'receipt':
      return { kind: 'receipt', receipt: told.receipt as Receipt }
    case 'end':
      return { kind: 'end' }
    case 'error':
      return { kind: 'refusal', refusal: refusalOf(told) }
    default:
      return undefined
  }
}
