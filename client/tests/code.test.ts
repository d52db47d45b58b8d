// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Block, Renderer } from '@/markdown/blocks'
import { colour } from '@/markdown/colours'
import { languageOf, titleOf } from '@/markdown/languages'
import { LONGEST, PLAIN, type Painted, Painter } from '@/markdown/painter'
import { sanitize } from '@/markdown/purify'

const parsed = (html: string): Element => new DOMParser().parseFromString(`<body>${html}</body>`, 'text/html').body

describe('a fence’s word', () => {
  it('is a language, by whichever name', () => {
    expect(['py', 'JS', 'c++', 'html', 'zsh', 'yml', 'brainfuck', ''].map(languageOf)).toEqual([
      'python', 'javascript', 'cpp', 'xml', 'bash', 'yaml', undefined, undefined,
    ])
    expect(['ts', 'c#', 'brainfuck', ''].map(titleOf)).toEqual(['TypeScript', 'C#', 'brainfuck', ''])
  })
})

describe('colours', () => {
  it('are classes of spans around the code’s own characters', () => {
    expect(colour('def f(a):\n    return "<b>" # é\n', 'python')).toBe(
      '<span class="hljs-keyword">def</span> <span class="hljs-title function_">f</span>(<span class="hljs-params">a</span>):\n' +
        '    <span class="hljs-keyword">return</span> <span class="hljs-string">&quot;&lt;b&gt;&quot;</span> <span class="hljs-comment"># é</span>\n',
    )
  })

  it.each([
    ['xml', '<script>alert(1)</script><img src=x onerror=alert(1)>'],
    ['xml', '<style>@import "//evil"</style><svg onload=alert(1)>'],
    ['javascript', '"</span></pre><script>alert(1)</script>" // --><img src=x onerror=alert(1)>'],
    ['markdown', '[x](javascript:alert(1)) <iframe src="javascript:alert(1)">'],
    ['php', '<?php echo "<script>alert(1)</script>"; ?><img src=x onerror=alert(1)>'],
    ['bash', 'echo \'"><img src=x onerror=alert(1)>\''],
  ] as const)('an attack in %s stays text: %s', (language, attack) => {
    for (const made of [colour(attack, language), sanitize(colour(attack, language))]) {
      const body = parsed(made)
      expect(body.textContent).toBe(attack)
      const found = [...body.querySelectorAll('*')].map((one) => [one.tagName, ...[...one.attributes].map(({ name }) => name)])
      expect(found.filter((one) => one.join(' ') !== 'SPAN class')).toEqual([])
    }
  })
})

describe('a fence', () => {
  const renderer = new Renderer({ sanitize: (html) => html, formula: undefined, missing: () => undefined })
  const open = (text: string): boolean[] => renderer.blocks(text).filter((one): one is Block & { kind: 'code' } => one.kind === 'code').map((one) => one.open)

  it('is open until its end has come', () => {
    expect(['```js\na', '```js\na\n``', '```js', '```js\na\n```', '```js\na\n```\n', '```js\n```', '~~~~\na\n~~~', '~~~~\na\n~~~~', '    indented'].map(open)).toEqual(
      [[true], [true], [true], [false], [false], [false], [true], [false], [false]],
    )
    expect(open('```js\na\n```\ntext\n```py\nb')).toEqual([false, true])
  })

  it('tells the language by its first word', () => {
    const languages = renderer.blocks('```ts {1,3} title="x"\na\n```\n\n```python:main.py\nb\n```').map((one) => (one.kind === 'code' ? one.language : ''))
    expect(languages).toEqual(['ts', 'python'])
  })
})

describe('code that grows', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  const upper = vi.fn((code: string) => code.toUpperCase())
  function painter(): { painter: Painter; shown: Painted[] } {
    upper.mockClear()
    const shown: Painted[] = []
    const made = new Painter((painted) => shown.push(painted), () => 0)
    made.use(upper)
    return { painter: made, shown }
  }

  it('is coloured by whole lines, now and then, and whole once it is', () => {
    const { painter: one, shown } = painter()
    one.take('a\nb', true)
    one.take('a\nbc\nd', true)
    expect(shown).toEqual([])
    vi.advanceTimersByTime(250)
    expect(shown).toEqual([{ html: 'A\nBC\n', upTo: 5 }])
    one.take('a\nbc\nde', false)
    expect(shown[1]).toEqual({ html: 'A\nBC\nDE', upTo: 7 })
    expect(upper).toHaveBeenCalledTimes(2)
  })

  it('is plain again where another text comes, and where it is too long', () => {
    const { painter: one, shown } = painter()
    one.take('a\n', false)
    one.take('x', true)
    expect(shown).toEqual([{ html: 'A\n', upTo: 2 }, PLAIN])
    one.take('y'.repeat(LONGEST + 1), false)
    expect(shown.length).toBe(2)
  })

  it('is not coloured after its block has gone', () => {
    const { painter: one, shown } = painter()
    one.take('a\n', true)
    one.stop()
    vi.advanceTimersByTime(1000)
    expect(shown).toEqual([])
  })
})
