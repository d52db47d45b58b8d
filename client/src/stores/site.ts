/** What the law and the stores want said of this service, and whether it may sell here. Never kept: a review begins at any time. */

import { computed, reactive } from 'vue'
import * as api from '@/api/site'
import { IS_PAGE, copyText, asker, openAddress } from '@/transport/platform'
import { look, t } from './look'
import { say } from './talk'

export const site = reactive<{ told: api.Site | undefined }>({ told: undefined })

/** Whether ways to a till are drawn. A mini-program draws none before it knows: its store's reviewers look at that, too. */
export const sells = computed(() => (site.told === undefined ? IS_PAGE : !site.told.purchases.hidden))

/** Where everybody may look up a site's number: the law wants the number on the first page, and leading there. */
export const BEIAN = 'https://beian.miit.gov.cn/'
export const icp = computed(() => site.told?.filed.icp_number ?? '')

let asking: Promise<void> | undefined

export function refreshSite(): Promise<void> {
  asking ??= api
    .site(asker())
    .then((told) => void (site.told = told))
    .finally(() => (asking = undefined))
  return asking
}

/** Asks once more where the app's start could not. */
export async function knowSite(): Promise<void> {
  if (site.told === undefined) await refreshSite()
}

/** Opens the terms or the policy in the reader's language. */
export function readLegal(text: api.Legal): void {
  openElsewhere(`${text.url}?lang=${look.language === 'en' ? 'en' : 'zh-hans'}`)
}

/**
 * Opens a page beside the app. A mini-program copies its address: a web-view shows only hosts that were entered in
 * WeChat's console, and none at all in a program of a person.
 */
export function openElsewhere(url: string): void {
  if (IS_PAGE) openAddress(url)
  else void copyText(url).then((done) => say(t(done ? 'linkCopied' : 'copyFailed')))
}
