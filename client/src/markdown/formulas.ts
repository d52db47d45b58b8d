/** KaTeX, loaded with the first formula. */

import katex from 'katex'
import 'katex/dist/katex.min.css'

export function render(tex: string, display: boolean): string {
  return katex.renderToString(tex, { displayMode: display, throwOnError: false, trust: false, maxSize: 20, maxExpand: 200 })
}
