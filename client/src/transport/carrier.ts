/** What a way of carrying answers does; there are three, and `session.ts` chooses and changes between them. */

import type { StreamEvent } from '@/protocol/events'

export interface Ask {
  message?: string
  conversation?: string
  model?: string
  role?: string
  parent?: string
  regenerate?: string
  edit?: string
  /** Ids; absent: as the message has them that is replaced. */
  attachments?: string[]
  client_msg_id?: string
  /** With `offset`: attach to an answer, in place of all others. */
  message_id?: string
  offset?: number
}

/** How a connection ended: after all it had, before that, or without that this way can tell anything here. */
export type Ending = 'done' | 'cut' | 'blind'

export interface Listener {
  event(event: StreamEvent): void
  /** Called once. */
  closed(how: Ending): void
}

export interface Connection {
  /** Leaves: nothing is told any more. The answer itself goes on. */
  leave(): void
}

export interface Carrier {
  readonly name: string
  open(ask: Ask, listener: Listener): Connection
}

export interface Where {
  /** `https://host`, without a slash; empty on a page, whose own host it is. */
  server: string
  token: string
  appId: string
  language: string
}

/** Hands events on until the connection is left or closed, and says `closed` once. */
export class Line {
  private open = true

  constructor(private readonly listener: Listener) {}

  get isOpen(): boolean {
    return this.open
  }

  tell(events: readonly StreamEvent[]): void {
    for (const event of events) if (this.open) this.listener.event(event)
  }

  close(how: Ending): void {
    if (!this.open) return
    this.open = false
    this.listener.closed(how)
  }

  leave(): void {
    this.open = false
  }
}

export function headersOf(where: Where): Record<string, string> {
  return {
    'Content-Type': 'application/json',
    'Accept-Language': where.language,
    ...(where.token === '' ? {} : { Authorization: `Bearer ${where.token}` }),
  }
}
