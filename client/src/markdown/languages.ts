/** The languages that code is coloured in: what a fence may call them, and what people call them. */

/** A language's module in highlight.js, its name, and the other words for it. */
const KNOWN = {
  bash: 'Shell,sh,shell,zsh,console,shell-session',
  c: 'C,h',
  cpp: 'C++,c++,cc,cxx,hpp',
  csharp: 'C#,cs,c#',
  css: 'CSS',
  diff: 'Diff,patch',
  dockerfile: 'Dockerfile,docker',
  go: 'Go,golang',
  ini: 'TOML / INI,toml,conf,properties',
  java: 'Java',
  javascript: 'JavaScript,js,jsx,mjs,cjs',
  json: 'JSON,jsonc,json5',
  kotlin: 'Kotlin,kt,kts',
  lua: 'Lua',
  markdown: 'Markdown,md',
  php: 'PHP',
  python: 'Python,py,python3,gyp',
  ruby: 'Ruby,rb',
  rust: 'Rust,rs',
  sql: 'SQL,mysql,postgresql,sqlite,psql',
  swift: 'Swift',
  typescript: 'TypeScript,ts,tsx,mts',
  xml: 'HTML / XML,html,vue,svg,xhtml,wxml',
  yaml: 'YAML,yml',
} as const
export type Language = keyof typeof KNOWN

const words = new Map<string, Language>()
const names = new Map<Language, string>()
for (const [module, row] of Object.entries(KNOWN) as [Language, string][]) {
  const [name = '', ...others] = row.split(',')
  names.set(module, name)
  for (const word of [module, ...others]) words.set(word, module)
}

/** Returns the language that a fence's word means; undefined for one that is not coloured. */
export function languageOf(word: string): Language | undefined {
  return words.get(word.toLowerCase())
}

/** Returns what stands over a block: the language's own name, or the fence's word as it is. */
export function titleOf(word: string): string {
  const known = languageOf(word)
  return known === undefined ? word : (names.get(known) ?? word)
}
