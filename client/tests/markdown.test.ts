// @vitest-environment jsdom
import { describe, expect, it } from 'vitest'
import { type Block, Renderer, type Ways } from '@/markdown/blocks'
import { render as formula } from '@/markdown/formulas'
import { sanitize } from '@/markdown/purify'

const PLAIN: Ways = { sanitize: (html) => html, formula: undefined, missing: () => undefined }
const htmlOf = (blocks: Block[]): string => blocks.map((block) => (block.kind === 'html' ? block.html : '')).join('')
const html = (text: string, ways: Ways = PLAIN): string => htmlOf(new Renderer(ways).blocks(text))

const ATTACKS = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '<svg onload=alert(1)>',
  '<svg><script>alert(1)</script></svg>',
  '<iframe src="javascript:alert(1)"></iframe>',
  '<math><mtext></table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
  '<a href="javascript:alert(1)">x</a>',
  '[x](javascript:alert(1))',
  '[x](JaVaScRiPt:alert(1))',
  '[x](java\nscript:alert(1))',
  '[x](&#106;avascript:alert(1))',
  '[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)',
  '[x](vbscript:msgbox(1))',
  '[x](https://a.example/"onmouseover="alert(1))',
  '[x](<https://a.example/" onmouseover="alert(1)>)',
  '![x](javascript:alert(1))',
  '![" onerror="alert(1)](https://a.example/x.png)',
  '![x](https://tracker.example/pixel.png)',
  '<https://a.example/"onclick=alert(1)>',
  '<javascript:alert(1)>',
  '[x]: javascript:alert(1)\n\n[x]',
  '`<img src=x onerror=alert(1)>`',
  '```"><img src=x onerror=alert(1)>\ncode\n```',
  '| <img src=x onerror=alert(1)> |\n| --- |\n| <script>alert(1)</script> |',
  '# <img src=x onerror=alert(1)>',
  '<details open ontoggle=alert(1)>',
  '<form action="javascript:alert(1)"><button>x</button></form>',
  '<style>@import "https://evil.example/x.css"</style>',
  '<base href="https://evil.example/">',
  '<meta http-equiv="refresh" content="0;url=javascript:alert(1)">',
  '$\\href{javascript:alert(1)}{x}$',
  '$\\includegraphics{https://tracker.example/x.png}$',
  '$$\\htmlStyle{background:url(https://tracker.example)}{x}$$',
  '$<img src=x onerror=alert(1)>$',
]
const SAFE_TAGS = /^(P|A|STRONG|EM|DEL|CODE|PRE|BR|HR|UL|OL|LI|BLOCKQUOTE|H[1-6]|TABLE|THEAD|TBODY|TR|TH|TD|DIV|SPAN|svg|path|line|math|semantics|mrow|m\w+|annotation)$/

/** What a browser would make of it: every element, with its attributes. */
function elementsOf(text: string): Element[] {
  const parsed = new DOMParser().parseFromString(`<body>${text}</body>`, 'text/html')
  return [...parsed.body.querySelectorAll('*'), ...parsed.head.querySelectorAll('*')]
}

describe.each([
  ['as the mini-program gets it', PLAIN],
  ['as the page gets it', { ...PLAIN, sanitize }],
  ['with formulas', { ...PLAIN, sanitize, formula }],
] as const)('an attack %s', (_name, ways) => {
  it.each(ATTACKS)('%s is harmless', (attack) => {
    for (const element of elementsOf(html(attack, ways))) {
      expect(element.tagName).toMatch(SAFE_TAGS)
      for (const { name, value } of [...element.attributes]) {
        expect(name).not.toMatch(/^on|^src|^action|^formaction|^xlink/i)
        if (name === 'href') expect(value).toMatch(/^(https?:|mailto:|tel:)/i)
        if (name === 'style') expect(value).not.toMatch(/url|expression|import/i)
      }
    }
  })
})

describe('Markdown', () => {
  it('is what it should be', () => {
    expect(html('**b** *i* ~~d~~ `c` <b>')).toBe('<p><strong>b</strong> <em>i</em> <del>d</del> <code>c</code> &lt;b&gt;</p>\n')
    expect(html('- [x] a\n- [ ] b')).toBe('<ul>\n<li>☑ a</li>\n<li>☐ b</li>\n</ul>\n')
    expect(html('| a | b |\n| :- | -: |\n| 1 | 2 |')).toBe(
      '<div class="table"><table><thead><tr><th style="text-align:left">a</th><th style="text-align:right">b</th></tr></thead>' +
        '<tbody><tr><td style="text-align:left">1</td><td style="text-align:right">2</td></tr></tbody></table></div>',
    )
    expect(html('[x](https://a.example/?a=1&b=2)')).toBe(
      '<p><a href="https://a.example/?a=1&amp;b=2" target="_blank" rel="noopener noreferrer nofollow">x</a></p>\n',
    )
  })

  it('has code apart, also while it is being written', () => {
    const code = new Renderer(PLAIN).blocks('a\n\n```python title\nprint(1)\n')
    expect(code).toEqual([
      { kind: 'html', key: '0', html: '<p>a</p>\n' },
      { kind: 'code', key: '2', code: 'print(1)', language: 'python', open: true },
    ])
  })

  it('renders what has not changed once', () => {
    let times = 0
    const renderer = new Renderer({
      ...PLAIN,
      sanitize: (text) => {
        times += 1
        return text
      },
    })
    const text = Array.from({ length: 50 }, (_, i) => `paragraph ${i}`).join('\n\n')
    for (let at = 0; at <= text.length; at += 1) renderer.blocks(text.slice(0, at))
    expect(times).toBeLessThan(text.length + 50)
    expect(htmlOf(renderer.blocks(text))).toBe(html(text))
  })

  it.each([
    ['costs $5 and $10 today', '<p>costs $5 and $10 today</p>\n'],
    ['so $x^2$ is', '<p>so <code class="tex">x^2</code> is</p>\n'],
    ['so \\(a<b\\) is', '<p>so <code class="tex">a&lt;b</code> is</p>\n'],
    ['$$\\frac{1}{2}$$', '<p class="tex-block"><code class="tex">\\frac{1}{2}</code></p>'],
    ['\\[E=mc^2\\]', '<p class="tex-block"><code class="tex">E=mc^2</code></p>'],
    ['`$x$`', '<p><code>$x$</code></p>\n'],
  ])('knows formulas: %s', (text, shown) => {
    expect(html(text)).toBe(shown)
  })

  it('asks for formulas once one is there, and shows them then', () => {
    let asked = 0
    const renderer = new Renderer({ ...PLAIN, missing: () => (asked += 1) })
    renderer.blocks('no formula, $5')
    expect(asked).toBe(0)
    renderer.blocks('$x$')
    expect(asked).toBe(1)
    expect(html('$x$', { ...PLAIN, formula, sanitize })).toContain('class="katex"')
  })
})
