import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { en } from '@/locale/en'
import { zh } from '@/locale/zh'
import { PAGES } from '@/stores/pages'

const SRC = join(__dirname, '..', 'src')

function files(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? files(join(folder, entry.name)) : [join(folder, entry.name)],
  )
}

const sources = files(SRC).filter((path) => /\.(vue|ts)$/.test(path))
const values = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? '').sort()

describe('texts', () => {
  it('are in both languages, with the same values', () => {
    expect(Object.keys(en).sort()).toEqual(Object.keys(zh).sort())
    for (const [key, text] of Object.entries(zh)) expect([key, ...values(en[key as keyof typeof zh])]).toEqual([key, ...values(text)])
  })

  it('are Chinese in Chinese, and not in English', () => {
    const han = /[\u3400-\u9fff]/
    expect(Object.entries(en).filter(([, text]) => han.test(text))).toEqual([])
    expect(Object.entries(zh).filter(([, text]) => !han.test(text))).toEqual([])
  })

  it('stand nowhere but in the catalogues', () => {
    const allowed = ['locale/zh.ts', 'stores/times.ts', 'pages/profile/index.vue']
    const found = sources
      .filter((path) => !allowed.some((name) => path.endsWith(name)))
      .filter((path) => /[\u3400-\u9fff]/.test(readFileSync(path, 'utf8')))
    expect(found).toEqual([])
  })

  it('are all used', () => {
    const all = sources.filter((path) => !path.includes('/locale/')).map((path) => readFileSync(path, 'utf8')).join('\n')
    const made = /^(report_|channel_|standing_|theme_|pinned$|today$|yesterday$|week$|month$|older$)/
    const unused = Object.keys(zh).filter((key) => !made.test(key) && !all.includes(`'${key}'`))
    expect(unused).toEqual([])
  })
})

describe('pages', () => {
  it('that are gone to are there, and none is without a way to it', () => {
    const declared = JSON.parse(readFileSync(join(SRC, 'pages.json'), 'utf8')) as { pages: { path: string }[] }
    expect(declared.pages.map(({ path }) => `/${path}`)).toEqual(Object.values(PAGES))
    const all = sources.map((path) => readFileSync(path, 'utf8')).join('\n')
    const unreachable = Object.keys(PAGES).filter((name) => name !== 'chat' && !all.includes(`go('${name}'`))
    expect(unreachable.filter((name) => !['login', 'recharge'].includes(name))).toEqual([])
  })

  it('lead to the till only where things are sold', () => {
    const ways = sources.flatMap((path) =>
      readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line.includes(`"go('recharge')"`))
        .map((line) => [path.slice(SRC.length + 1), /v-(else-)?if="([^"]* && )?sells"/.test(line)]),
    )
    expect(ways).toEqual([
      ['components/SidePane.vue', true],
      ['pages/order/index.vue', true],
      ['pages/profile/index.vue', true],
      ['pages/wallet/index.vue', true],
    ])
  })

  it('ask the two platforms apart in transport/ only', () => {
    const found = sources.filter((path) => readFileSync(path, 'utf8').includes('#ifdef ') && !path.includes('/transport/'))
    expect(found).toEqual([])
  })
})
