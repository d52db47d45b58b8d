/**
 * ALTCHA's proof of work: find the number whose SHA-256, behind the salt, is the challenge. No browser's own cryptography:
 * it is there on secure pages only, and in no mini-program.
 */

import { sha256 } from '@noble/hashes/sha2'
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils'

export interface Work {
  algorithm: string
  challenge: string
  maxnumber: number
  salt: string
  signature: string
}

/** Between two looks at the clock; the page answers to its person after so many ms. */
const STEP = 64
const SLICE = 24

/** Returns what was asked for, if a refusal says so. */
export function workOf(told: unknown): Work | undefined {
  if (typeof told !== 'object' || told === null) return undefined
  const { algorithm, challenge, maxnumber, salt, signature } = told as Record<string, unknown>
  const isWork =
    algorithm === 'SHA-256' &&
    typeof challenge === 'string' &&
    typeof salt === 'string' &&
    typeof signature === 'string' &&
    typeof maxnumber === 'number' &&
    maxnumber <= 5_000_000
  return isWork ? { algorithm, challenge, maxnumber, salt, signature } : undefined
}

/** Works in slices and tells how far it is (0 to 1); returns the answer, undefined where there is none or it was left. */
export async function solve(work: Work, tell: (share: number) => void, isLeft: () => boolean = () => false): Promise<string | undefined> {
  let number = 0
  while (number <= work.maxnumber && !isLeft()) {
    const end = Date.now() + SLICE
    while (number <= work.maxnumber && Date.now() < end) {
      for (let i = 0; i < STEP && number <= work.maxnumber; i += 1, number += 1) {
        if (bytesToHex(sha256(utf8ToBytes(work.salt + number))) === work.challenge) return answerOf(work, number)
      }
    }
    tell(Math.min(1, number / work.maxnumber))
    await new Promise((resolve) => setTimeout(resolve, 0))
  }
  return undefined
}

function answerOf({ algorithm, challenge, salt, signature }: Work, number: number): string {
  return base64(JSON.stringify({ algorithm, challenge, number, salt, signature }))
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

/** `btoa` is not there in a mini-program; all that is written here is ASCII. */
function base64(text: string): string {
  let made = ''
  for (let i = 0; i < text.length; i += 3) {
    const [a, b, c] = [text.charCodeAt(i), text.charCodeAt(i + 1), text.charCodeAt(i + 2)]
    const three = (a << 16) | ((b || 0) << 8) | (c || 0)
    const four = [18, 12, 6, 0].map((by) => DIGITS.charAt((three >> by) & 63))
    made += four.slice(0, Number.isNaN(b) ? 2 : Number.isNaN(c) ? 3 : 4).join('').padEnd(4, '=')
  }
  return made
}
