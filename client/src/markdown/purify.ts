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
    : classed(html)
}

/** A mini-program's style sheets know classes only. */
function classed(html: string): string {
  return html.replace(/<([a-z][a-z0-9]*)(?=[\s>])(?![^>]*class=)/g, '<$1 class="md-$1"')
}
