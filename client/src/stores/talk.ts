/** What people are told, and asked, over the page. */

import { Refused } from '@/api/client'
import { copyText } from '@/transport/platform'
import { brand } from './brand'
import { tints } from './colours'
import { isDark, t } from './look'

export function say(text: string): void {
  uni.showToast({ title: text, icon: 'none', duration: 2500 })
}

/** Returns why something was refused, in the person's words; what is no refusal is a fault of ours, and goes on up. */
export function reasonOf(failure: unknown): string {
  if (!(failure instanceof Refused)) throw failure
  return failure.refusal.msg || t('offline')
}

/** Runs something that may be refused, and says why, over the page or where `tell` puts it; returns undefined then. */
export async function tried<T>(work: Promise<T>, tell: (reason: string) => void = say): Promise<T | undefined> {
  try {
    return await work
  } catch (failure) {
    tell(reasonOf(failure))
    return undefined
  }
}

function buttons(): { cancelText: string; confirmText: string; cancelColor: string; confirmColor: string } {
  return {
    cancelText: t('cancel'),
    confirmText: t('confirm'),
    cancelColor: isDark.value ? '#b6bcc6' : '#5f6672',
    confirmColor: tints(brand.front.primary_color, isDark.value).brandText.replace(/^rgb\((.*)\)$/, (_, parts: string) => hex(parts)),
  }
}

/** WeChat takes colours of dialogs in this form only. */
function hex(parts: string): string {
  return `#${parts
    .split(',')
    .map((part) => Number(part).toString(16).padStart(2, '0'))
    .join('')}`
}

export function confirmed(title: string, content: string): Promise<boolean> {
  return new Promise((resolve) => {
    uni.showModal({
      title,
      content,
      ...buttons(),
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
      ...buttons(),
      success: ({ confirm, content }) => resolve(confirm ? content?.trim() || undefined : undefined),
      fail: () => resolve(undefined),
    })
  })
}

export async function copy(text: string): Promise<void> {
  say(t((await copyText(text)) ? 'copied' : 'copyFailed'))
}
