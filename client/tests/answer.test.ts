import { describe, expect, it } from 'vitest'
import { type Answer, advance, codePoints, cut, isOver, newAnswer } from '@/protocol/answer'
import type { StreamEvent } from '@/protocol/events'
import { comeBack, detour, reactionTo } from '@/protocol/reactions'

const TEXT = 'A你好😀, 👨‍👩‍👧 e\u0301 𝒳 end'
const POINTS = Array.from(TEXT)

function after(answer: Answer, ...events: StreamEvent[]): Answer {
  return events.reduce(advance, answer)
}

describe('an answer', () => {
  it('that is cut at any character goes on from there, without one twice or lost', () => {
    for (let at = 0; at <= POINTS.length; at += 1) {
      const first = after(
        newAnswer(),
        { kind: 'started', messageId: 'm', conversationId: 'c' },
        { kind: 'text', text: POINTS.slice(0, at).join('') },
      )
      const offset = cut(first).offset
      expect(offset).toBe(at)
      const whole = after(
        cut(first),
        { kind: 'started', messageId: 'm', conversationId: 'c' },
        { kind: 'text', text: POINTS.slice(offset).join('') },
        { kind: 'end' },
      )
      expect([whole.text, whole.offset, whole.phase]).toEqual([TEXT, POINTS.length, 'whole'])
    }
  })

  it('that comes in halves of a pair counts characters, and gives up a half when it is cut', () => {
    for (let at = 0; at <= TEXT.length; at += 1) {
      const first = after(newAnswer(), { kind: 'text', text: TEXT.slice(0, at) })
      const joined = after(first, { kind: 'text', text: TEXT.slice(at) })
      expect([joined.text, joined.offset]).toEqual([TEXT, POINTS.length])
      const kept = cut(first)
      expect(kept.text).toBe(POINTS.slice(0, kept.offset).join(''))
      expect(kept.text + POINTS.slice(kept.offset).join('')).toBe(TEXT)
    }
  })

  it('takes nothing after its end', () => {
    const whole = after(newAnswer(), { kind: 'text', text: 'a' }, { kind: 'end' })
    expect(after(whole, { kind: 'text', text: 'b' }, { kind: 'heartbeat' })).toEqual(whole)
    expect(isOver(whole)).toBe(true)
  })

  it('counts code points as Python does, lone surrogates too', () => {
    expect(['', 'ab', '😀', '\ud83d', '\ude00\ud83d', 'a😀b'].map(codePoints)).toEqual([0, 2, 1, 1, 2, 3])
  })
})

const refusal = (code: number) => ({
  code,
  msg: 'said',
  type: 't',
  scope: 's',
  action: 'a',
  reset_at: '2026-11-26T00:00:00+08:00',
  request_id: 'r',
})

describe('a refusal', () => {
  it.each([
    [-1, false, 'login', true, null],
    [101, false, 'recharge', true, null],
    [101, true, 'recharge', false, null],
    [102, false, 'show', false, '2026-11-26T00:00:00+08:00'],
    [10001, false, 'show', false, null],
    [11000, true, 'show', false, null],
    [404, false, 'show', false, null],
    [500, false, 'show', false, null],
    [0, false, 'show', false, null],
  ] as const)('%i (text: %s) leads to %s', (code, hasText, kind, takesBack, resetAt) => {
    expect(reactionTo(refusal(code), hasText)).toEqual({ kind, takesBack, msg: 'said', resetAt })
  })

  it('leads to no till where nothing may be sold: its words are shown', () => {
    const shown = { kind: 'show', takesBack: false, msg: 'said', resetAt: null }
    expect([false, true].map((hasText) => reactionTo(refusal(101), hasText, false))).toEqual([shown, shown])
    expect(reactionTo(refusal(-1), false, false).kind).toBe('login')
  })

  const away = detour({ at: 'nowhere' }, reactionTo(refusal(101), false), '7', 'c-1')

  it('that leads away leads back to where it was, once', () => {
    expect(away).toEqual({ at: 'recharge', owner: '7', place: 'c-1' })
    expect(comeBack(away, '7')).toEqual({ now: { at: 'nowhere' }, place: 'c-1' })
    expect(comeBack({ at: 'nowhere' }, '7')).toEqual({ now: { at: 'nowhere' } })
  })

  it('leads back when somebody is there, and nobody else', () => {
    expect(comeBack(away, undefined)).toEqual({ now: away })
    expect(comeBack(away, '8')).toEqual({ now: { at: 'nowhere' }, place: undefined })
  })

  it('that is shown leads nowhere', () => {
    expect(detour({ at: 'nowhere' }, reactionTo(refusal(102), false), '7', 'c-1')).toEqual({ at: 'nowhere' })
  })
})
