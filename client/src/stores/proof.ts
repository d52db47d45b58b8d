/** That it is really you, before something delicate: asked for where the server wants it, and only then. */

import { reactive } from 'vue'
import type { CodeChannel, Proof } from '@/api/account'
import { Refused } from '@/api/client'

export type ProofWay = CodeChannel | 'password'

/** The sheet that asks: the ways that are open, and what was wrong with the last try. */
export const proving = reactive<{ ways: ProofWay[]; isOpen: boolean; wrong: string }>({ ways: [], isOpen: false, wrong: '' })

let answer: ((proof: Proof | undefined) => void) | undefined

/**
 * Runs something that the server may want a proof for. Returns undefined where the person would not give one; throws
 * what is refused for other reasons. `bringsCode`: the work has a code of its own, so that a wrong one may be that.
 */
export async function withProof<T>(work: (proof: Proof) => Promise<T>, bringsCode = false): Promise<T | undefined> {
  let proof: Proof = {}
  for (;;) {
    try {
      return await work(proof)
    } catch (failure) {
      if (!(failure instanceof Refused)) throw failure
      const { type, msg } = failure.refusal
      if (type === 'proof_needed') ask(waysIn(failure.told), '')
      else if (type === 'wrong_password' && proof.password) ask(proving.ways, msg)
      else if (type === 'code_wrong' && proof.proof_code && !bringsCode) ask(proving.ways, msg)
      else throw failure
      const given = await new Promise<Proof | undefined>((resolve) => {
        answer = resolve
      })
      if (given === undefined) return undefined
      proof = given
    }
  }
}

/** Gives what was entered; nothing where the sheet was closed. */
export function prove(proof?: Proof): void {
  proving.isOpen = false
  answer?.(proof)
  answer = undefined
}

function ask(ways: ProofWay[], wrong: string): void {
  answer?.(undefined)
  Object.assign(proving, { ways, isOpen: true, wrong })
}

/** The way "login" is no field: its button is the log-in itself. */
function waysIn(told: Record<string, unknown>): ProofWay[] {
  const ways = Array.isArray(told.ways) ? (told.ways as unknown[]) : []
  return (['password', 'phone', 'email'] as const).filter((way) => ways.includes(way))
}
