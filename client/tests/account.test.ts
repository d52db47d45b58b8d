import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Proof } from '@/api/account'
import { Refused } from '@/api/client'
import { refusalOf } from '@/protocol/events'
import { prove, proving, withProof } from '@/stores/proof'
import { secondsLeft, secondsUntil, waitAsTold, waitFor } from '@/stores/waits'

const refused = (type: string, told: Record<string, unknown> = {}, reset_at?: string): Refused =>
  new Refused(refusalOf({ code: 10001, msg: type, type, reset_at }), told)
const needed = refused('proof_needed', { ways: ['phone', 'password', 'login'] })
const asked = (): Promise<void> => vi.waitFor(() => expect(proving.isOpen).toBe(true))

describe('a proof', () => {
  it('is not asked for where none is wanted', async () => {
    expect(await withProof((proof) => Promise.resolve(proof))).toEqual({})
    expect(proving.isOpen).toBe(false)
  })

  it('is asked for by the ways that are open, and again where it was wrong', async () => {
    const given: Proof[] = []
    const work = (proof: Proof): Promise<string> => {
      given.push(proof)
      if (given.length === 1) return Promise.reject(needed)
      return given.length === 2 ? Promise.reject(refused('wrong_password')) : Promise.resolve('done')
    }
    const going = withProof(work)
    await asked()
    expect([proving.ways, proving.wrong]).toEqual([['password', 'phone'], ''])
    prove({ password: 'wrong' })
    await vi.waitFor(() => expect([proving.isOpen, proving.wrong]).toEqual([true, 'wrong_password']))
    prove({ proof_channel: 'phone', proof_code: '123456' })
    expect(await going).toBe('done')
    expect(given).toEqual([{}, { password: 'wrong' }, { proof_channel: 'phone', proof_code: '123456' }])
  })

  it('that is not given leaves everything as it was', async () => {
    const going = withProof(() => Promise.reject(needed))
    await asked()
    prove()
    expect(await going).toBe(undefined)
  })

  it('is not to blame for a code of the work’s own', async () => {
    const work = (proof: Proof): Promise<string> => Promise.reject(proof.proof_code ? refused('code_wrong') : needed)
    const bind = withProof(work, true)
    await asked()
    prove({ proof_channel: 'phone', proof_code: '1' })
    await expect(bind).rejects.toThrow('code_wrong')
    const unbind = withProof(work)
    await asked()
    prove({ proof_channel: 'phone', proof_code: '1' })
    await vi.waitFor(() => expect([proving.isOpen, proving.wrong]).toEqual([true, 'code_wrong']))
    prove()
    expect(await unbind).toBe(undefined)
  })
})

describe('the seconds on a button', () => {
  beforeEach(() => void vi.useFakeTimers({ now: Date.parse('2026-11-26T00:00:00Z') }))
  afterEach(() => void vi.useRealTimers())

  it('go down, for each phone by itself, and go on in the background', () => {
    waitFor('bind.1', 60)
    expect([secondsLeft('bind.1'), secondsLeft('bind.2')]).toEqual([60, 0])
    vi.advanceTimersByTime(1000)
    expect(secondsLeft('bind.1')).toBe(59)
    vi.setSystemTime(Date.now() + 50_000)
    vi.advanceTimersByTime(1000)
    expect(secondsLeft('bind.1')).toBe(8)
    vi.advanceTimersByTime(9000)
    expect(secondsLeft('bind.1')).toBe(0)
  })

  it('are the server’s, unless the device’s clock is wrong', () => {
    expect(secondsUntil('2026-11-26T00:00:42Z', 60)).toBe(42)
    expect([secondsUntil('2026-11-25T23:00:00Z', 60), secondsUntil('2026-11-26T09:00:00Z', 60), secondsUntil(null, 60)]).toEqual([60, 60, 60])
  })

  it('are told by a refusal that came too early', () => {
    waitAsTold('a', refused('too_many_codes', {}, '2026-11-26T00:00:30Z'))
    waitAsTold('b', refused('phone_invalid'))
    waitAsTold('c', new Error('other'))
    expect(['a', 'b', 'c'].map(secondsLeft)).toEqual([30, 0, 0])
  })
})
