/** Who invited somebody that came by a mini-program's own code: said to the server once they are logged in. */

import { acceptInvitation } from '@/api/billing'
import { Refused } from '@/api/client'
import { IS_PAGE } from '@/transport/platform'
import { t } from './look'
import { deviceId, recall, remember } from './storage'
import { say } from './talk'
import { isGuest, isLoggedIn, onCome } from './user'

/** What may be another time: the network, a log-in that is over, a guest who signs in later. */
const LATER = ['network', 'login_required', 'guest_not_rewarded', 'too_many_tries']

/** Takes what the code handed over; a page is led by its link, and takes nothing from its address. */
export function cameBy(scene: string | undefined): void {
  const code = decoded(scene ?? '')
  if (IS_PAGE || !/^[0-9A-Za-z]{4,16}$/.test(code)) return
  remember('invited', code)
  void accept()
}

async function accept(): Promise<void> {
  const code = recall('invited')
  if (code === '' || !isLoggedIn.value || isGuest.value) return
  try {
    const { inviter } = await acceptInvitation(code, deviceId())
    say(t('accepted', { name: inviter }))
  } catch (failure) {
    // Who has been here for long, or scans their own, meant nothing by it: nothing is said.
    if (!(failure instanceof Refused) || failure.refusal.code === -1 || LATER.includes(failure.refusal.type)) return
  }
  remember('invited', '')
}

onCome(() => void accept())

function decoded(scene: string): string {
  try {
    return decodeURIComponent(scene)
  } catch {
    return ''
  }
}
