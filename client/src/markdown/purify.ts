/** The second look at HTML, where there is a document; a mini-program's rich text has its own list of tags. */

import DOMPurify from 'dompurify'

DOMPurify.addHook?.('afterSanitizeAttributes', (node) => {
  if (node.nodeName === 'A') node.setAttribute('rel', 'noopener noreferrer nofollow')
})

export function sanitize(html: string): string {
  return DOMPurify.isSupported
    ? DOMPurify.sanitize(html, {
        ADD_ATTR: ['target'],
        FORBID_TAGS: ['style', 'form', 'input', 'button', 'textarea', 'select', 'img', 'video', 'audio', 'iframe', 'a-frame'],
        FORBID_ATTR: ['id', 'name', 'srcset', 'src'],
        ALLOW_DATA_ATTR: false,
      })
    : html
}
