/** That a person is here, where the server asks for it: work for the device, or a provider's widget on a page. */

import { reactive } from 'vue'
import { Refused } from '@/api/client'
import { solve, workOf } from '@/protocol/work'

export interface Widget {
  provider: string
  siteKey: string
  script: string
}

/** The sheet that is shown meanwhile: how far the work is, or the widget that a person is to solve. */
export const guarding = reactive<{ isOpen: boolean; share: number; widget: Widget | undefined }>({
  isOpen: false,
  share: 0,
  widget: undefined,
})

let give: ((answer: string | undefined) => void) | undefined

/**
 * Runs something that may want a captcha, and once more with its answer. What is refused for other reasons, or was left
 * unsolved, is thrown as it came. `shows` says whether a widget can be shown here.
 */
export async function withCaptcha<T>(work: (captcha: string) => Promise<T>, shows = true): Promise<T> {
  try {
    return await work('')
  } catch (failure) {
    if (!(failure instanceof Refused) || failure.refusal.type !== 'captcha_needed') throw failure
    const answer = await ask(failure.told, shows)
    if (answer === undefined) throw failure
    return work(answer)
  }
}

/** Takes a widget's answer; nothing where the sheet was closed. */
export function answer(token?: string): void {
  give?.(token)
  give = undefined
}

async function ask(told: Record<string, unknown>, shows: boolean): Promise<string | undefined> {
  const work = workOf(told.challenge)
  const widget = widgetOf(told)
  if (work === undefined && (widget === undefined || !shows)) return undefined
  answer()
  let isLeft = false
  const left = new Promise<string | undefined>((resolve) => {
    give = resolve
  }).finally(() => (isLeft = true))
  Object.assign(guarding, { isOpen: true, share: 0, widget: work === undefined ? widget : undefined })
  const tell = (share: number): void => {
    guarding.share = share
  }
  try {
    return await (work === undefined ? left : Promise.race([left, solve(work, tell, () => isLeft)]))
  } finally {
    answer()
    guarding.isOpen = false
  }
}

function widgetOf({ provider, site_key, script }: Record<string, unknown>): Widget | undefined {
  const isOne = typeof provider === 'string' && typeof site_key === 'string' && typeof script === 'string' && script !== ''
  return isOne ? { provider, siteKey: site_key, script } : undefined
}
