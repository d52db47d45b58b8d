/** What people are told, and asked, over the page. */

import { Refused } from '@/api/client'
import { copyText } from '@/transport/platform'
import { t } from './look'

export function say(text: string): void {
  uni.showToast({ title: text, icon: 'none', duration: 2500 })
}

/** Runs something that may be refused, and says why; returns undefined then. */
export async function tried<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work
  } catch (failure) {
    if (!(failure instanceof Refused)) throw failure
    say(failure.refusal.msg || t('offline'))
    return undefined
  }
}

export function confirmed(title: string, content: string): Promise<boolean> {
  return new Promise((resolve) => {
    uni.showModal({
      title,
      content,
      cancelText: t('cancel'),
      confirmText: t('confirm'),
      success: ({ confirm }) => resolve(confirm),
      fail: () => resolve(false),
    })
  })
}

/** Asks for a line of text; undefined where nothing was entered. */
export function asked(title: string, known: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    uni.showModal({
      title,
      content: known,
      editable: true,
      cancelText: t('cancel'),
      confirmText: t('confirm'),
      success: ({ confirm, content }) => resolve(confirm ? content?.trim() || undefined : undefined),
      fail: () => resolve(undefined),
    })
  })
}

export async function copy(text: string): Promise<void> {
  say(t((await copyText(text)) ? 'copied' : 'copyFailed'))
}
