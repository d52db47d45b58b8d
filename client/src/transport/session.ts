/**
 * One answer from its question to its end, over as many connections as it takes.
 *
 * A connection that is cut (60 s limits, background, another network) is followed by one that attaches to the answer at
 * its offset; before the answer's id is known the question goes again with its `client_msg_id`, which never asks twice.
 * A way that tells nothing here is left for the next.
 */

import { type Answer, advance, cut, isOver, isResumable, newAnswer } from '@/protocol/answer'
import type { Refusal, StreamEvent } from '@/protocol/events'
import type { Ask, Carrier, Connection, Ending } from './carrier'

/** The server is silent for 15 s at most; iOS may not tell that a connection is dead. */
const SILENCE = 25_000
const PAUSES = [0, 500, 1000, 2000, 4000, 8000]
/** How many connections may bring nothing at all before the answer is given up for now. */
const TRIES = 8

export interface Clock {
  after(ms: number, then: () => void): () => void
}

export const realClock: Clock = {
  after(ms, then) {
    const timer = setTimeout(then, ms)
    return () => clearTimeout(timer)
  },
}

export interface SessionOptions {
  ways: readonly Carrier[]
  ask: Ask
  /** An answer of which something is known already: a page that was opened anew. */
  known?: Answer
  changed(answer: Answer): void
  /** While no connection is up: for a line that says so. */
  waiting(isWaiting: boolean): void
  /** Which way worked, so that the next answer begins with it. */
  worked?(way: number): void
  firstWay?: number
  clock?: Clock
  lost: Refusal
}

export class Session {
  answer: Answer
  private connection: Connection | undefined
  private way: number
  private retells = false
  private fruitless = 0
  private over = false
  private cancelPause: (() => void) | undefined
  private cancelSilence: (() => void) | undefined
  private readonly clock: Clock

  constructor(private readonly options: SessionOptions) {
    this.answer = options.known ?? newAnswer()
    this.way = options.firstWay ?? 0
    this.clock = options.clock ?? realClock
    this.connect()
  }

  /** The network is back, or the app is in front again: what waits tries now, what may be dead is replaced. */
  wake(): void {
    if (this.over) return
    this.fruitless = 0
    this.reconnect(0)
  }

  /** Leaves the answer, which goes on without a reader. */
  leave(): void {
    this.over = true
    this.hangUp()
  }

  /** Ends the reading as if the answer had come to its end: after a stop that nobody confirmed. */
  settle(): void {
    if (!this.over) this.take({ kind: 'end' })
  }

  private connect(): void {
    const { ask, ways } = this.options
    const carrier = ways[this.way] as Carrier
    let gotSomething = false
    const ended = (how: Ending): void => {
      this.connection?.leave()
      this.connection = undefined
      if (this.over) return
      if (how === 'blind' || (!gotSomething && this.fruitless > 1)) this.way = (this.way + 1) % ways.length
      // A way that tells nothing here is no try, unless all of them are such.
      if (!gotSomething && (how !== 'blind' || this.way === 0)) this.fruitless += 1
      this.reconnect(PAUSES[Math.min(this.fruitless, PAUSES.length - 1)] ?? 0)
    }
    const watch = (): void => {
      this.cancelSilence?.()
      this.cancelSilence = this.clock.after(SILENCE, () => ended('cut'))
    }
    // The offset counts the answer's characters: before the first of them a new connection tells all the reasoning anew.
    this.retells = isResumable(this.answer) && this.answer.offset === 0
    watch()
    this.connection = carrier.open(
      isResumable(this.answer) ? { message_id: this.answer.messageId, offset: this.answer.offset } : ask,
      {
        event: (event) => {
          this.options.waiting(false)
          // Headers and heartbeats are no progress: a server that ends each connection after them is not asked for ever.
          if (!gotSomething && event.kind !== 'started' && event.kind !== 'heartbeat') {
            gotSomething = true
            this.fruitless = 0
            this.options.worked?.(this.way)
          }
          watch()
          this.take(event)
        },
        closed: ended,
      },
    )
  }

  private reconnect(pause: number): void {
    this.hangUp()
    this.answer = cut(this.answer)
    if (this.fruitless >= TRIES) {
      this.take({ kind: 'refusal', refusal: this.options.lost })
      return
    }
    this.options.waiting(true)
    this.cancelPause = this.clock.after(pause, () => this.connect())
  }

  private take(event: StreamEvent): void {
    const before = this.answer
    if (event.kind === 'thinking' && this.retells) this.answer = { ...before, thinking: '' }
    this.retells = this.retells && event.kind !== 'thinking'
    this.answer = advance(this.answer, event)
    if (isOver(this.answer)) {
      this.over = true
      this.hangUp()
      this.options.waiting(false)
    }
    if (this.answer !== before) this.options.changed(this.answer)
  }

  private hangUp(): void {
    this.cancelPause?.()
    this.cancelSilence?.()
    this.connection?.leave()
    this.connection = undefined
  }
}
