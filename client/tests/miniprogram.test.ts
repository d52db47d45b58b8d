/**
 * The built mini-program's own files, run on a small `wx` over real HTTP: what WeChat's tool packs, not the sources.
 * `make miniprogram` and `npm run build:mp-weixin` write them; without them this says so and passes by.
 */

import { existsSync, readFileSync } from 'node:fs'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import type { Answer } from '@/protocol/answer'
import type { Session as SessionType } from '@/transport/session'
import type { WeChatCarrier as CarrierType } from '@/transport/wechat'
import { type Quirks, wxOver } from './wx'

const BUILT = join(__dirname, '..', 'dist', 'build', 'mp-weixin')
const isBuilt = existsSync(join(BUILT, 'app.json'))
if (!isBuilt) process.stdout.write('SKIPPED: the mini-program is not built (npm run build:mp-weixin)\n')

const load = createRequire(join(BUILT, 'app.js'))
const TEXT = '从第一个字到最后一个字 — every character once, 😀 too.'
const POINTS = Array.from(TEXT)

let server: Server | undefined
/** The connection that breaks off, once the program has read so many characters. */
let cut: { at: number; connection: ServerResponse } | undefined
afterEach(() => {
  server?.closeAllConnections()
  server?.close()
})

/** Frames as the server writes them, the connection cut after every `cutAfter` characters. */
async function serve(cutAfter: number): Promise<string> {
  const frame = (value: object) => `success: ${JSON.stringify(value)}\r\n`
  server = createServer((request, response) => {
    let body = ''
    request.on('data', (more: Buffer) => (body += more.toString()))
    request.on('end', () => {
      const { offset = 0 } = JSON.parse(body) as { offset?: number }
      response.write(frame({ content: '', message_id: 'm1', conversation_id: 'c1' }))
      for (const point of POINTS.slice(offset, offset + cutAfter)) response.write(frame({ content: point }))
      if (offset + cutAfter >= POINTS.length) response.end('0\r\n\r\n')
      else cut = { at: offset + cutAfter, connection: response }
    })
  })
  await new Promise<void>((ready) => server?.listen(0, '127.0.0.1', ready))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function answered(address: string, quirks: Quirks): Promise<Answer> {
  const { WeChatCarrier } = load('./transport/wechat.js') as { WeChatCarrier: typeof CarrierType }
  const { Session } = load('./transport/session.js') as { Session: typeof SessionType }
  return new Promise((resolve) => {
    void new Session({
      ways: [new WeChatCarrier(wxOver(quirks), () => ({ server: address, token: 't', appId: 'wx1', language: 'zh-CN' }))],
      ask: { message: 'q', client_msg_id: 'k' },
      lost: { code: 0, msg: 'lost', type: 'network', scope: '', action: '', reset_at: null, request_id: '' },
      waiting: () => undefined,
      changed: (answer) => {
        if (cut !== undefined && answer.offset >= cut.at) {
          cut.connection.destroy()
          cut = undefined
        }
        if (answer.phase === 'whole' || answer.phase === 'refused') resolve(answer)
      },
    })
  })
}

describe.runIf(isBuilt)('the built mini-program', () => {
  it.each([
    ['byte by byte', 1000, { bytes: 1 }],
    ['joined', 1000, {}],
    ['at the end only', 1000, { chunks: 'none' }],
    ['cut again and again', 9, { bytes: 3 }],
  ] as const)('has the whole answer, delivered %s', async (_name, cutAfter, quirks) => {
    const answer = await answered(await serve(cutAfter), quirks)
    expect([answer.phase, answer.text, answer.offset]).toEqual(['whole', TEXT, POINTS.length])
  })

  it('offers the picture and the name that WeChat knows', () => {
    const [picture, name] = ['transport/WeChatAvatar', 'components/NameSheet'].map((path) => readFileSync(join(BUILT, `${path}.wxml`), 'utf8'))
    expect(picture).toMatch(/<button [^>]*open-type="chooseAvatar" bindchooseavatar=/)
    expect(name).toMatch(/<input [^>]*type="nickname"[^>]* bindnicknamereview=/)
  })

  it('declares every page, and calls no foreign host', () => {
    const app = JSON.parse(readFileSync(join(BUILT, 'app.json'), 'utf8')) as { pages: string[] }
    expect(app.pages.filter((page) => !existsSync(join(BUILT, `${page}.wxml`)))).toEqual([])
    expect(readFileSync(join(BUILT, 'app.wxss'), 'utf8')).not.toMatch(/url\(["']?(https?:)?\/\//)
  })
})
