/** All that makes an answer's Markdown into blocks: one file, which a page asks for when it has somebody to answer. */

export { Renderer } from './blocks'
export { sanitize } from './purify'
