/** What renders Markdown, once it is there. */

import { shallowRef } from 'vue'
import { type Markdown, loadMarkdown } from '@/transport/platform'

export const markdown = shallowRef<Markdown>()

/** Asks for it where it is missing. Where it does not come, texts stand as they were written, and the next one asks again. */
export function needMarkdown(): void {
  if (markdown.value !== undefined) return
  void loadMarkdown()
    .then((kit) => (markdown.value = kit))
    .catch(() => undefined)
}
