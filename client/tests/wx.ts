/** A small `wx` with real HTTP: enough of `wx.request` to run the mini-program's transport in node. */

import { request as httpRequest } from 'node:http'
import type { WxRequest } from '@/transport/wechat'

export interface Quirks {
  /** Chunks of so many bytes, whatever the network brings. */
  bytes?: number
  /** `none`: the version hands over everything at the end. `blind`: with chunks switched on it tells nothing at all. */
  chunks?: 'some' | 'none' | 'blind'
}

export function wxOver(quirks: Quirks): WxRequest {
  return {
    request(options) {
      const chunked = options.enableChunked && (quirks.chunks ?? 'some') === 'some'
      const isBlind = options.enableChunked && quirks.chunks === 'blind'
      let take: ((chunk: { data: unknown }) => void) | undefined
      const body: Buffer[] = []
      let aborted = false
      const fail = (errMsg: string): void => {
        if (!aborted) options.fail({ errMsg })
      }
      const call = httpRequest(options.url, { method: options.method, headers: options.header }, (response) => {
        response.on('data', (bytes: Buffer) => {
          if (!chunked) {
            body.push(bytes)
            return
          }
          const size = quirks.bytes ?? bytes.length
          for (let at = 0; at < bytes.length; at += size) {
            const piece = bytes.subarray(at, at + size)
            take?.({ data: piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.length) })
          }
        })
        response.on('error', () => fail('request:fail interrupted'))
        response.on('end', () => {
          const all = Buffer.concat(body)
          const data = isBlind || chunked ? undefined : all.buffer.slice(all.byteOffset, all.byteOffset + all.length)
          if (response.complete && !aborted) options.success({ data, statusCode: response.statusCode ?? 0 })
        })
      })
      call.on('error', () => fail('request:fail'))
      call.end(options.data)
      return {
        abort: () => {
          aborted = true
          call.destroy()
        },
        onChunkReceived: (then) => {
          take = then
        },
      }
    },
  }
}
