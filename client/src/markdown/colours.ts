/** highlight.js, loaded with the first block whose language it knows; each language is a file of its own. */

import core from 'highlight.js/lib/core'
import type { LanguageFn } from 'highlight.js'
import type { Language } from './languages'

const FILES: Record<Language, () => Promise<{ default: LanguageFn }>> = {
  bash: () => import('highlight.js/lib/languages/bash'),
  c: () => import('highlight.js/lib/languages/c'),
  cpp: () => import('highlight.js/lib/languages/cpp'),
  csharp: () => import('highlight.js/lib/languages/csharp'),
  css: () => import('highlight.js/lib/languages/css'),
  diff: () => import('highlight.js/lib/languages/diff'),
  dockerfile: () => import('highlight.js/lib/languages/dockerfile'),
  go: () => import('highlight.js/lib/languages/go'),
  ini: () => import('highlight.js/lib/languages/ini'),
  java: () => import('highlight.js/lib/languages/java'),
  javascript: () => import('highlight.js/lib/languages/javascript'),
  json: () => import('highlight.js/lib/languages/json'),
  kotlin: () => import('highlight.js/lib/languages/kotlin'),
  lua: () => import('highlight.js/lib/languages/lua'),
  markdown: () => import('highlight.js/lib/languages/markdown'),
  php: () => import('highlight.js/lib/languages/php'),
  python: () => import('highlight.js/lib/languages/python'),
  ruby: () => import('highlight.js/lib/languages/ruby'),
  rust: () => import('highlight.js/lib/languages/rust'),
  sql: () => import('highlight.js/lib/languages/sql'),
  swift: () => import('highlight.js/lib/languages/swift'),
  typescript: () => import('highlight.js/lib/languages/typescript'),
  xml: () => import('highlight.js/lib/languages/xml'),
  yaml: () => import('highlight.js/lib/languages/yaml'),
}
/** What is written inside of another language, and coloured there if it is there. */
const INSIDE: Partial<Record<Language, Language[]>> = { xml: ['javascript', 'css'], markdown: ['xml'], php: ['xml'] }

/** Returns a function from code to HTML: the code's own characters escaped, in `span`s that have a class. */
export async function load(language: Language): Promise<(code: string) => string> {
  const wanted = [language, ...(INSIDE[language] ?? [])]
  await Promise.all(
    wanted.map(async (one) => {
      if (!core.getLanguage(one)) core.registerLanguage(one, (await FILES[one]()).default)
    }),
  )
  return (code) => core.highlight(code, { language, ignoreIllegals: true }).value
}
