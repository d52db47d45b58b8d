/**
 * Colours a block of code that may still grow. What is whole is coloured at once; of what grows the lines that are whole,
 * now and then, and never for more than a twentieth of the time: the rest stands behind in plain text.
 */

export type Colour = (code: string) => string

/** Longer code than this stays plain: nobody reads it in a chat, and a phone would stand still. */
export const LONGEST = 60_000
const PAUSE = 250

export interface Painted {
  /** The coloured beginning as safe HTML, "" where nothing is; and how many characters of the code it is. */
  html: string
  upTo: number
}

export const PLAIN: Painted = { html: '', upTo: 0 }

export class Painter {
  private source = ''
  private timer: ReturnType<typeof setTimeout> | undefined
  private pause = PAUSE
  private latest = { code: '', open: false }
  private colour: Colour | undefined

  constructor(
    private show: (painted: Painted) => void,
    private clock: () => number = Date.now,
  ) {}

  /** Takes the way of colouring, once it is loaded; undefined for a language that has none. */
  use(colour: Colour | undefined): void {
    this.colour = colour
    this.source = ''
    this.take(this.latest.code, this.latest.open)
  }

  take(code: string, open: boolean): void {
    this.latest = { code, open }
    // Another text, not more of this one: its colours are no longer true.
    if (!code.startsWith(this.source)) {
      this.source = ''
      this.show(PLAIN)
    }
    if (this.colour === undefined || code.length > LONGEST) return
    if (!open) this.paint()
    else this.timer ??= setTimeout(() => this.paint(), this.pause)
  }

  stop(): void {
    clearTimeout(this.timer)
    this.timer = undefined
  }

  private paint(): void {
    this.stop()
    const { code, open } = this.latest
    const source = open ? code.slice(0, code.lastIndexOf('\n') + 1) : code
    if (this.colour === undefined || source === this.source) return
    const begun = this.clock()
    const html = this.colour(source)
    this.pause = Math.max(PAUSE, 20 * (this.clock() - begun))
    this.source = source
    this.show({ html, upTo: source.length })
  }
}
