/**
 * An answer's Markdown as blocks: HTML that is safe, code, and formulas.
 *
 * Safe twice over: the renderer writes a few tags and attributes of its own and shows all HTML of the answer as text;
 * on a page DOMPurify looks at the result once more (`sanitize`). A mini-program's rich text knows no scripts at all.
 * Pictures are links: an answer must not make a reader's device call a foreign host.
 */

import { Marked, type RendererThis, type Token, type Tokens } from 'marked'

export type Block =
  | { kind: 'html'; key: string; html: string }
  /** `open`: its fence is not closed yet, more of it may come. */
  | { kind: 'code'; key: string; code: string; language: string; open: boolean }

export interface Ways {
  sanitize(html: string): string
  /** Undefined until formulas can be shown, or where they cannot. */
  formula: ((tex: string, display: boolean) => string) | undefined
  /** Called when a formula was met that could not be shown yet. */
  missing(): void
}

interface Formula extends Tokens.Generic {
  type: 'formula'
  tex: string
  display: boolean
}

/** A fence behind whose code another one closes it. */
const CLOSED = /^ {0,3}(`{3,}|~{3,})(?![`~])[^\n]*\n(?:[\s\S]*\n)? {0,3}\1[`~]* *\n*$/
const ADDRESS = /^(https?:|mailto:|tel:)/i
const DISPLAY = /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])/
// A dollar before a digit, as in "$5 and $10", begins no formula unless it ends right behind one.
// (No look-behind: Safari knows it since 16.4 only, and fails at the whole script.)
const INLINE = /^(?:\$(?!\s|\$)((?:\\.|[^\\$\n])*?(?:\\.|[^\\$\s]))\$(?![\d$])|\\\(((?:\\.|[^\\])+?)\\\))/

export function escape(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;')
}

function made(ways: Ways): Marked {
  const show = (formula: Formula): string => {
    if (ways.formula !== undefined) return ways.formula(formula.tex, formula.display)
    ways.missing()
    const source = `<code class="tex">${escape(formula.tex)}</code>`
    return formula.display ? `<p class="tex-block">${source}</p>` : source
  }
  const link = (parser: RendererThis['parser'], href: string, tokens: Token[] | undefined, text: string): string => {
    const shown = tokens ? parser.parseInline(tokens) : escape(text)
    return ADDRESS.test(href)
      ? `<a href="${escape(href)}" target="_blank" rel="noopener noreferrer nofollow">${shown}</a>`
      : shown
  }
  const marked = new Marked({
    gfm: true,
    breaks: true,
    renderer: {
      html: ({ text }) => escape(text),
      link({ href, tokens, text }) {
        return link(this.parser, href, tokens, text)
      },
      image({ href, text }) {
        return link(this.parser, href, undefined, `🖼 ${text || href}`)
      },
      table({ header, rows }) {
        const cell = (tag: string, one: Tokens.TableCell): string =>
          `<${tag}${one.align ? ` style="text-align:${one.align}"` : ''}>${this.parser.parseInline(one.tokens)}</${tag}>`
        const head = header.map((one) => cell('th', one)).join('')
        const body = rows.map((row) => `<tr>${row.map((one) => cell('td', one)).join('')}</tr>`).join('')
        return `<div class="table"><table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`
      },
      checkbox: ({ checked }) => (checked ? '☑' : '☐'),
    },
  })
  marked.use({
    extensions: [
      {
        name: 'formula',
        level: 'block',
        start: (text: string) => find(text, /\$\$|\\\[/),
        tokenizer: (text: string) => token(DISPLAY.exec(text), true),
        renderer: (one) => show(one as Formula),
      },
      {
        name: 'formula',
        level: 'inline',
        start: (text: string) => find(text, /\$|\\\(|\\\[/),
        tokenizer: (text: string) => token(DISPLAY.exec(text), true) ?? token(INLINE.exec(text), false),
        renderer: (one) => show(one as Formula),
      },
    ],
  })
  return marked
}

function find(text: string, what: RegExp): number | undefined {
  const at = text.search(what)
  return at < 0 ? undefined : at
}

function token(found: RegExpExecArray | null, display: boolean): Formula | undefined {
  return found ? { type: 'formula', raw: found[0], tex: (found[1] ?? found[2] ?? '').trim(), display } : undefined
}

/**
 * Renders one message again and again while it grows: what has not changed is not rendered anew, so that a long answer
 * costs what its last block costs.
 */
export class Renderer {
  private readonly marked: Marked
  private known = new Map<string, string>()

  constructor(private readonly ways: Ways) {
    this.marked = made(ways)
  }

  blocks(text: string): Block[] {
    const tokens = this.marked.lexer(text)
    const known = new Map<string, string>()
    const found: Block[] = []
    tokens.forEach((one, at) => {
      if (one.type === 'space') return
      const key = `${at}`
      if (one.type === 'code') {
        const code = one as Tokens.Code
        const language = (code.lang ?? '').split(/[\s{,:]/)[0] ?? ''
        const open = at === tokens.length - 1 && code.codeBlockStyle !== 'indented' && !CLOSED.test(code.raw)
        found.push({ kind: 'code', key, code: code.text, language, open })
        return
      }
      const links = tokens.links
      const html = this.known.get(one.raw) ?? this.ways.sanitize(this.marked.parser(Object.assign([one], { links })))
      known.set(one.raw, html)
      found.push({ kind: 'html', key, html })
    })
    this.known = known
    return found
  }
}
