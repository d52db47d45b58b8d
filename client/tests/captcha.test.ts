import { createHash } from 'node:crypto'
import { describe, expect, it, vi } from 'vitest'
import { Refused } from '@/api/client'
import { refusalOf } from '@/protocol/events'
import { solve, workOf, type Work } from '@/protocol/work'
import { answer, guarding, withCaptcha } from '@/stores/captcha'

const SALT = '0123456789abcdef01234567?expires=1764126000&'
const workFor = (number: number, maxnumber = 3000): Work => ({
  algorithm: 'SHA-256',
  challenge: createHash('sha256').update(`${SALT}${number}`).digest('hex'),
  maxnumber,
  salt: SALT,
  signature: 'f'.repeat(64),
})
const needed = (told: Record<string, unknown>): Refused => new Refused(refusalOf({ code: 10001, msg: 'show it', type: 'captcha_needed' }), told)
const brought = (text: string): unknown => JSON.parse(Buffer.from(text, 'base64').toString())

describe('work', () => {
  it.each([0, 1, 2999, 3000])('finds %i, and says so as the server reads it', async (number) => {
    const found = await solve(workFor(number), () => undefined)
    const { algorithm, challenge, salt, signature } = workFor(number)
    expect(brought(found ?? '')).toEqual({ algorithm, challenge, number, salt, signature })
  })

  it('ends where there is no such number, and where it is left', async () => {
    expect(await solve(workFor(7, 5), () => undefined)).toBe(undefined)
    expect(await solve(workFor(2999), () => undefined, () => true)).toBe(undefined)
  })

  it('is what a refusal says, and of a kind that is known', () => {
    expect(workOf(workFor(1))).toEqual(workFor(1))
    expect([undefined, null, 'x', { ...workFor(1), algorithm: 'MD5' }, { ...workFor(1), maxnumber: 1e9 }].map(workOf)).toEqual(Array(5).fill(undefined))
  })
})

describe('a captcha', () => {
  it('is asked for where the server does, and its answer goes along once', async () => {
    const calls: string[] = []
    const work = (captcha: string): Promise<string> => {
      calls.push(captcha)
      return captcha === '' ? Promise.reject(needed({ provider: 'altcha', challenge: workFor(5) })) : Promise.resolve('in')
    }
    expect(await withCaptcha(work)).toBe('in')
    expect([calls.length, brought(calls[1] ?? '')]).toMatchObject([2, { number: 5 }])
    expect(guarding.isOpen).toBe(false)
  })

  it('may be a widget, whose token goes along', async () => {
    const work = vi.fn((captcha: string) => (captcha === 'token' ? Promise.resolve('in') : Promise.reject(needed({ provider: 'turnstile', site_key: 'k', script: 'https://c.example/api.js' }))))
    const going = withCaptcha(work)
    await vi.waitFor(() => expect(guarding.widget).toEqual({ provider: 'turnstile', siteKey: 'k', script: 'https://c.example/api.js' }))
    answer('token')
    expect(await going).toBe('in')
  })

  it('that is left, or cannot be shown, is the refusal that it was', async () => {
    const refusal = needed({ provider: 'turnstile', site_key: 'k', script: 'https://c.example/api.js' })
    const left = withCaptcha(() => Promise.reject(refusal))
    await vi.waitFor(() => expect(guarding.isOpen).toBe(true))
    answer()
    await expect(left).rejects.toBe(refusal)
    await expect(withCaptcha(() => Promise.reject(refusal), false)).rejects.toBe(refusal)
    await expect(withCaptcha(() => Promise.reject(needed({ provider: 'turnstile', site_key: 'k', script: '' })))).rejects.toThrow('show it')
  })

  it('has nothing to do with other refusals', async () => {
    const other = new Refused(refusalOf({ code: 102, msg: 'later', type: 'too_many_tries' }))
    await expect(withCaptcha(() => Promise.reject(other))).rejects.toBe(other)
  })
})
