/** The fall-back of both: one answer over `/ws/chat`. */

import { socketEvent } from '@/protocol/socket'
import { type Ask, type Carrier, type Connection, Line, type Listener, type Where } from './carrier'

/** A WebSocket, whoever made it: the page's own or the mini-program's. */
export interface SocketPort {
  onOpen(then: () => void): void
  onText(take: (text: string) => void): void
  /** After a failure too. */
  onClose(then: () => void): void
  send(text: string): void
  close(): void
}

const OPENING = 10_000

export class SocketCarrier implements Carrier {
  readonly name = 'socket'

  constructor(
    private readonly connect: (url: string) => SocketPort,
    private readonly where: () => Where,
  ) {}

  open(ask: Ask, listener: Listener): Connection {
    const where = this.where()
    const line = new Line(listener)
    const socket = this.connect(addressOf(where.server))
    const end = (how: 'done' | 'cut' | 'blind'): void => {
      clearTimeout(opening)
      line.close(how)
      socket.close()
    }
    let isOpen = false
    const opening = setTimeout(() => end('blind'), OPENING)
    socket.onOpen(() => {
      isOpen = true
      clearTimeout(opening)
      // The token goes in the message, not in the address, which proxies log.
      socket.send(JSON.stringify({ ...requestOf(ask), token: where.token, appid: where.appId || undefined }))
    })
    socket.onText((text) => {
      const event = socketEvent(text)
      if (event === undefined) return
      line.tell([event])
      if (event.kind === 'end' || event.kind === 'refusal') end('done')
    })
    socket.onClose(() => end(isOpen ? 'cut' : 'blind'))
    return {
      leave: () => {
        line.leave()
        end('cut')
      },
    }
  }
}

function requestOf(ask: Ask): Record<string, unknown> {
  return ask.message_id === undefined ? { op: 'send', ...ask } : { op: 'resume', ...ask }
}

export function addressOf(server: string): string {
  const base = server || `${location.protocol}//${location.host}`
  return `${base.replace(/^http/, 'ws')}/ws/chat`
}
