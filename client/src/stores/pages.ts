/** Ways between the pages: every address stands here, and a test holds them against pages.json. */

export const PAGES = {
  chat: '/pages/chat/index',
  login: '/pages/login/index',
  roles: '/pages/roles/index',
  recharge: '/pages/recharge/index',
  order: '/pages/order/index',
  wallet: '/pages/wallet/index',
  redeem: '/pages/redeem/index',
  invite: '/pages/invite/index',
  profile: '/pages/profile/index',
  account: '/pages/account/index',
  news: '/pages/news/index',
  about: '/pages/about/index',
} as const
export type Page = keyof typeof PAGES

export function go(page: Page, query: Record<string, string> = {}): void {
  const text = Object.entries(query)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&')
  const url = PAGES[page] + (text === '' ? '' : `?${text}`)
  uni.navigateTo({ url, fail: () => uni.redirectTo({ url }) })
}

/** Goes back; from a page that was opened by its address, to the chat. */
export function back(): void {
  if (getCurrentPages().length > 1) uni.navigateBack()
  else uni.reLaunch({ url: PAGES.chat })
}

export function goHome(): void {
  uni.reLaunch({ url: PAGES.chat })
}
