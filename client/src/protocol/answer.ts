/**
 * An answer as its reader has it: a pure function from state and event to state.
 *
 * It outlives connections. `offset` counts what was taken, in Unicode code points as the server does, so a connection
 * that attaches anew brings what follows: nothing twice, nothing lost.
 */

import type { Receipt, Refusal, StreamEvent } from './events'

export interface Answer {
  /** `asking`: nothing has come. `telling`: it is under way. The others are ends. */
  phase: 'asking' | 'telling' | 'whole' | 'refused'
  messageId: string
  conversationId: string
  text: string
  offset: number
  thinking: string
  receipt?: Receipt
  refusal?: Refusal
}

export function newAnswer(): Answer {
  return { phase: 'asking', messageId: '', conversationId: '', text: '', offset: 0, thinking: '' }
}

export function isOver(answer: Answer): boolean {
  return answer.phase === 'whole' || answer.phase === 'refused'
}

/** Returns the answer after an event. What comes after an end changes nothing. */
export function advance(answer: Answer, event: StreamEvent): Answer {
  if (isOver(answer)) return answer
  switch (event.kind) {
    case 'started':
      return {
        ...answer,
        phase: 'telling',
        messageId: event.messageId || answer.messageId,
        conversationId: event.conversationId || answer.conversationId,
      }
    case 'text':
      return { ...answer, phase: 'telling', ...joined(answer, event.text) }
    case 'thinking':
      return { ...answer, phase: 'telling', thinking: answer.thinking + event.text }
    case 'receipt':
      return { ...answer, receipt: event.receipt }
    case 'end':
      return { ...answer, phase: 'whole' }
    case 'refusal':
      return { ...answer, phase: 'refused', refusal: event.refusal }
    case 'heartbeat':
      return answer
  }
}

/** Returns the answer after its connection was cut: half a surrogate pair goes, the next connection brings it whole. */
export function cut(answer: Answer): Answer {
  return isHigh(answer.text.slice(-1)) ? { ...answer, text: answer.text.slice(0, -1), offset: answer.offset - 1 } : answer
}

/** What the next connection asks for: the rest of the answer, or, before its id is known, the question once more. */
export function isResumable(answer: Answer): boolean {
  return answer.messageId !== ''
}

function joined(answer: Answer, more: string): Pick<Answer, 'text' | 'offset'> {
  // A pair whose halves came apart is one character, not two.
  const isPair = isHigh(answer.text.slice(-1)) && isLow(more.slice(0, 1))
  return { text: answer.text + more, offset: answer.offset + codePoints(more) - (isPair ? 1 : 0) }
}

export function codePoints(text: string): number {
  let count = 0
  for (let i = 0; i < text.length; i += 1) {
    if (isHigh(text.charAt(i)) && isLow(text.charAt(i + 1))) i += 1
    count += 1
  }
  return count
}

function isHigh(unit: string): boolean {
  return unit >= '\uD800' && unit <= '\uDBFF'
}

function isLow(unit: string): boolean {
  return unit >= '\uDC00' && unit <= '\uDFFF'
}
