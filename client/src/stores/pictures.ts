/** Pictures that only their owner may load: each is fetched with the token once, and let go when many are there. */

import { reactive } from 'vue'
import { addressOf, around } from '@/api/client'
import { letGo, loadPicture, previewPicture } from '@/transport/platform'
import { onLeave } from './user'

/** As many are kept at once. */
const MOST = 60

export interface Picture {
  /** An address of the device's own; empty until it is there. */
  source: string
  isGone: boolean
}

export const pictures = reactive(new Map<string, Picture>())
/** What is shown large, on a page. */
export const viewed = reactive({ id: '', name: '' })

onLeave(() => {
  for (const { source } of pictures.values()) letGo(source)
  pictures.clear()
  viewed.id = ''
})

/** Has a picture ready that was chosen on this device. */
export function give(id: string, source: string): void {
  if (pictures.get(id)?.source) letGo(source)
  else keep(id, { source, isGone: false })
}

/** Loads a picture, where that is not done or under way. */
export function want(id: string): void {
  const known = pictures.get(id)
  if (known !== undefined && !known.isGone) return
  keep(id, { source: '', isGone: false })
  loadPicture(addressOf(`/api/chat/attachments/${id}`, {}), { Authorization: `Bearer ${around.token}` }).then(
    (source) => (pictures.has(id) ? keep(id, { source, isGone: false }) : letGo(source)),
    () => pictures.has(id) && keep(id, { source: '', isGone: true }),
  )
}

function keep(id: string, picture: Picture): void {
  pictures.delete(id)
  pictures.set(id, picture)
  for (const [old, { source }] of pictures) {
    if (pictures.size <= MOST) break
    if (source === '' || old === viewed.id) continue
    letGo(source)
    pictures.delete(old)
  }
}

/** Shows a picture large: in WeChat's own viewer, or over the page. */
export function view(id: string, name: string): void {
  const source = pictures.get(id)?.source
  if (source && !previewPicture(source)) Object.assign(viewed, { id, name })
}
