/*
 * The built mini-program's transport, run against a real server: node miniprogram.cjs '{"built", "port", "host", "token",
 * "ask", "bytes", "cuts", "background"}'. Prints the answer as JSON. `bytes`: what a chunk callback brings at a time; 0 is
 * all of a reply in one, at its end. `cuts`: after how many bytes of each of the first connections the network goes away;
 * with `background` it is the program that goes, nobody tells it that its connection is dead, and it comes to the front.
 */
const http = require('node:http')
const { join } = require('node:path')

const wanted = JSON.parse(process.argv[2])
const { WeChatCarrier } = require(join(wanted.built, 'transport', 'wechat.js'))
const { Session } = require(join(wanted.built, 'transport', 'session.js'))

let connections = 0

const wx = {
  request(options) {
    const url = new URL(options.url)
    let left = wanted.cuts[connections] ?? Infinity
    connections += 1
    let take = () => undefined
    let over = false
    const end = (then) => {
      if (!over) then()
      over = true
    }
    const call = http.request(
      {
        host: '127.0.0.1',
        port: wanted.port,
        path: url.pathname + url.search,
        method: options.method,
        headers: { ...options.header, Host: wanted.host },
      },
      (response) => {
        const give = (data) => {
          const size = wanted.bytes || data.length
          for (let at = 0; at < data.length && !over; at += size) {
            const piece = data.subarray(at, Math.min(at + size, at + left, data.length))
            left -= piece.length
            take({ data: piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.length) })
            if (left > 0) continue
            call.destroy()
            if (wanted.background) {
              over = true
              setImmediate(() => session.wake())
            } else end(() => options.fail({ errMsg: 'request:fail interrupted' }))
          }
        }
        const kept = []
        response.on('data', (data) => (wanted.bytes ? give(data) : kept.push(data)))
        response.on('end', () => {
          if (!wanted.bytes) give(Buffer.concat(kept))
          end(() => options.success({ statusCode: response.statusCode }))
        })
      },
    )
    call.on('error', () => end(() => options.fail({ errMsg: 'request:fail' })))
    call.end(options.data)
    return {
      abort() {
        over = true
        call.destroy()
      },
      onChunkReceived(then) {
        take = then
      },
    }
  },
}

const where = { server: `http://${wanted.host}:${wanted.port}`, token: wanted.token, appId: '', language: 'zh-CN' }
const session = new Session({
  ways: [new WeChatCarrier(wx, () => where)],
  ask: wanted.ask,
  lost: { code: 0, msg: 'lost', type: 'network' },
  waiting: () => undefined,
  changed: (answer) => {
    if (answer.phase !== 'whole' && answer.phase !== 'refused') return
    process.stdout.write(JSON.stringify({ ...answer, connections }))
  },
})
setTimeout(() => session.leave(), 60_000).unref()
