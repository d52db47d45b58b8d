/** A text file that is being read. */

import { reactive } from 'vue'
import { type Attachment, attachedText } from '@/api/chat'
import { tried } from './talk'
import { onLeave } from './user'

export const reader = reactive({ name: '', text: '' })

onLeave(close)

export async function read(file: Attachment): Promise<void> {
  const text = await tried(attachedText(file.id))
  if (text !== undefined) Object.assign(reader, { name: file.name, text })
}

export function close(): void {
  Object.assign(reader, { name: '', text: '' })
}
