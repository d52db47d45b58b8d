/** The mini-program's own code, which WeChat draws for the server: whoever scans it comes with one's invitation. */

import { addressOf, around } from '@/api/client'
import { IS_PAGE, loadPicture } from '@/transport/platform'

/** Returns an address of the device's own; empty on a page, and where there is none: a QR code stands for it then. */
export async function ownCode(): Promise<string> {
  if (IS_PAGE) return ''
  const header = { Authorization: `Bearer ${around.token}` }
  return loadPicture(addressOf('/api/billing/invitation/mini-program-code', {}), header).catch(() => '')
}
