/** One's own picture: on its way to the server, or why it did not get there. */

import { reactive } from 'vue'
import * as account from '@/api/account'
import { letGo, type Picked } from '@/transport/platform'
import { t } from './look'
import { tried } from './talk'
import { onLeave, user } from './user'

/** What the server takes. */
const MOST_BYTES = 8 * 1024 * 1024

/** `progress`: 0…100. `preview`: the picture's address on this device while it is on its way. */
export const avatar = reactive({ isSending: false, progress: 0, preview: '', failure: '' })

onLeave(() => (avatar.failure = ''))

export async function sendAvatar(picked: Picked): Promise<void> {
  if (avatar.isSending) return
  if (picked.size > MOST_BYTES) {
    letGo(picked.preview)
    avatar.failure = t('fileTooLarge', { name: picked.name })
    return
  }
  Object.assign(avatar, { isSending: true, progress: 0, preview: picked.preview, failure: '' })
  try {
    await change(account.changeAvatar(picked, (percent) => (avatar.progress = percent)))
  } finally {
    letGo(picked.preview)
    Object.assign(avatar, { isSending: false, preview: '' })
  }
}

export async function removeAvatar(): Promise<void> {
  avatar.failure = ''
  await change(account.removeAvatar())
}

/** Shows what the server says, unless whoever asked has left meanwhile. */
async function change(work: Promise<account.User>): Promise<void> {
  const whose = user.token
  const isTheirs = (): boolean => user.token === whose
  const changed = await tried(work, (reason) => isTheirs() && (avatar.failure = reason))
  if (changed !== undefined && isTheirs()) user.me = changed
}
