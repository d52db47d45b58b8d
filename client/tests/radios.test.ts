import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { nextOf, stopOf } from '@/components/radios'

describe('one of several', () => {
  const options = ['small', 'middle', 'large']

  it('is come to once: at what is chosen, or at the first', () => {
    expect([stopOf(options, 'middle'), stopOf(options, ''), stopOf(options, 'gone'), stopOf([], 'gone')]).toEqual([
      'middle',
      'small',
      'small',
      undefined,
    ])
  })

  it.each([
    ['small', 'ArrowRight', 'middle'],
    ['small', 'ArrowDown', 'middle'],
    ['large', 'ArrowRight', 'small'],
    ['small', 'ArrowLeft', 'large'],
    ['large', 'ArrowUp', 'middle'],
    ['small', 'Tab', undefined],
    ['gone', 'ArrowUp', undefined],
  ])('from %s by %s leads to %s', (from, key, to) => {
    expect(nextOf(options, from, key)).toBe(to)
  })

  it('is a radio in a group that has a name, and nothing else is in one', () => {
    const page = readFileSync('src/pages/recharge/index.vue', 'utf8')
    const groups = page.split('role="radiogroup"').slice(1).map((group) => group.split('</UiRadio>')[0] ?? '')
    expect(groups.length).toBe(3)
    for (const group of groups) {
      expect(group.slice(0, group.indexOf('>'))).toContain(':aria-label=')
      expect([group.includes('<UiRadio'), group.includes('<UiTap')]).toEqual([true, false])
    }
  })
})
