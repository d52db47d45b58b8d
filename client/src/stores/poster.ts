/** The picture that invites: what stands on it and where. It is drawn by whatever has a 2D context, in units of its own. */

import { mix, parse, toCss, until, type Rgb } from './colours'
import { qrRows } from './qr'

export const WIDTH = 360
export const HEIGHT = 600
/** Dots of the picture for each unit. */
export const SCALE = 3

export interface Poster {
  title: string
  slogan: string
  colour: string
  dark: boolean
  /** "Ann invites you", a line for each; what comes of it, how to scan, and the code, all in words. */
  headline: string[]
  reward: string
  /** What can be asked here, as bubbles. */
  prompts: string[]
  scan: string
  code: string
  /** What the QR code says. */
  link: string
  label: string
}

/** The part of a 2D context that is used; a mini-program's has it, too. */
export type Context = Pick<
  CanvasRenderingContext2D,
  | 'fillStyle'
  | 'font'
  | 'textAlign'
  | 'textBaseline'
  | 'globalAlpha'
  | 'fillRect'
  | 'fillText'
  | 'measureText'
  | 'beginPath'
  | 'moveTo'
  | 'arcTo'
  | 'arc'
  | 'closePath'
  | 'fill'
  | 'clip'
  | 'save'
  | 'restore'
  | 'scale'
  | 'createLinearGradient'
  | 'drawImage'
>

const FONT = '-apple-system, BlinkMacSystemFont, "PingFang SC", "HarmonyOS Sans SC", "Microsoft YaHei", "Noto Sans CJK SC", "Segoe UI", sans-serif'
const WHITE: Rgb = [255, 255, 255]
const BLACK: Rgb = [0, 0, 0]
const NIGHT: Rgb = [22, 23, 26]
const EDGE = 28
/** Opening punctuation does not end a line, closing punctuation begins none. */
const NO_BEGIN = /^[，。！？、：；）》」』,.!?:;)]/

/**
 * Draws the poster; `logo` is the tenant's, or undefined for the first letter of its name; `code` the mini-program's own,
 * or undefined for the link's as a QR code.
 */
export function paint(context: Context, poster: Poster, logo?: CanvasImageSource, code?: CanvasImageSource): void {
  context.save()
  context.scale(SCALE, SCALE)
  context.textBaseline = 'alphabetic'
  context.textAlign = 'left'
  ground(context, poster)
  brand(context, poster, logo)
  words(context, poster)
  card(context, poster, code)
  context.restore()
}

function ground(context: Context, { colour, dark }: Poster): void {
  const given = until(parse(colour), BLACK, WHITE)
  const gradient = context.createLinearGradient(0, 0, WIDTH, HEIGHT)
  const [from, to] = dark ? [mix(NIGHT, given, 0.55), NIGHT] : [given, mix(given, BLACK, 0.32)]
  gradient.addColorStop(0, toCss(from))
  gradient.addColorStop(1, toCss(to))
  context.fillStyle = gradient
  context.fillRect(0, 0, WIDTH, HEIGHT)
  context.fillStyle = toCss(WHITE)
  const circles = [
    [WIDTH - 20, 40, 130, 0.07],
    [WIDTH + 10, 190, 90, 0.06],
    [-30, 330, 120, 0.05],
  ] as const
  for (const [x, y, radius, alpha] of circles) {
    context.globalAlpha = alpha
    context.beginPath()
    context.arc(x, y, radius, 0, 2 * Math.PI)
    context.fill()
  }
  context.globalAlpha = 1
}

function brand(context: Context, { title, slogan }: Poster, logo?: CanvasImageSource): void {
  const size = 46
  const top = 36
  context.save()
  rounded(context, EDGE, top, size, size, 14)
  if (logo !== undefined) {
    context.clip()
    context.drawImage(logo, EDGE, top, size, size)
  } else {
    context.globalAlpha = 0.18
    context.fillStyle = toCss(WHITE)
    context.fill()
    context.globalAlpha = 1
    context.textAlign = 'center'
    text(context, Array.from(title)[0] ?? '', EDGE + size / 2, top + 32, 600, 23)
  }
  context.restore()
  const left = EDGE + size + 14
  const room = WIDTH - EDGE - left
  const [name = ''] = wrapped(context, title, room, 1, font(600, 19))
  const [line = ''] = wrapped(context, slogan, room, 1, font(400, 13))
  text(context, name, left, line === '' ? top + 30 : top + 20, 600, 19)
  text(context, line, left, top + 40, 400, 13, 0.86)
}

function words(context: Context, { headline, reward, prompts }: Poster): void {
  const lines = headline.flatMap((line) => wrapped(context, line, WIDTH - 2 * EDGE, 2, font(700, 31))).slice(0, 4)
  lines.forEach((line, at) => text(context, line, EDGE, 158 + at * 43, 700, 31))
  const more = wrapped(context, reward, WIDTH - 2 * EDGE, 3, font(400, 15))
  more.forEach((line, at) => text(context, line, EDGE, 158 + lines.length * 43 + at * 23, 400, 15, 0.92))
  bubbles(context, prompts, 158 + lines.length * 43 + more.length * 23)
}

/** Questions as bubbles, as many as there is room for above the card. */
function bubbles(context: Context, prompts: string[], top: number): void {
  const [height, gap, bottom] = [31, 10, HEIGHT - 190 - 46 - 18]
  const most = Math.min(prompts.length, 3, Math.floor((bottom - top + gap) / (height + gap)))
  prompts.slice(0, Math.max(0, most)).forEach((prompt, at) => {
    const [line = ''] = wrapped(context, prompt, WIDTH - 2 * EDGE - 60, 1, font(400, 13))
    const width = context.measureText(line).width + 30
    const x = at % 2 === 0 ? WIDTH - EDGE - width : EDGE
    const y = bottom - (most - at) * (height + gap) + gap
    rounded(context, x, y, width, height, 15)
    context.globalAlpha = 0.15
    context.fillStyle = toCss(WHITE)
    context.fill()
    text(context, line, x + 15, y + 20, 400, 13, 0.95)
  })
}

function card(context: Context, { scan, code, link, dark, label }: Poster, drawn?: CanvasImageSource): void {
  const [left, height] = [20, 190]
  const top = HEIGHT - height - 46
  rounded(context, left, top, WIDTH - 2 * left, height, 24)
  context.fillStyle = dark ? toCss([38, 40, 45]) : toCss(WHITE)
  context.fill()
  const tile = 154
  rounded(context, left + 18, top + 18, tile, tile, 14)
  context.fillStyle = toCss(WHITE)
  context.fill()
  // WeChat's has an edge of its own.
  if (drawn !== undefined) context.drawImage(drawn, left + 18 + 4, top + 18 + 4, tile - 8, tile - 8)
  else qr(context, link, left + 18 + 9, top + 18 + 9, tile - 18)
  const x = left + 18 + tile + 16
  const room = WIDTH - left - 14 - x
  const ink: Rgb = dark ? [236, 238, 241] : [23, 25, 28]
  const lines = scan.split('\n').flatMap((one) => wrapped(context, one, room, 3, font(600, 16)))
  lines.forEach((line, at) => text(context, line, x, top + 50 + at * 24, 600, 16, 1, ink))
  const faint: Rgb = dark ? [164, 171, 182] : [95, 102, 114]
  wrapped(context, code, room, 2, font(400, 13)).forEach((line, at) => text(context, line, x, top + 150 + at * 20 - 6, 400, 13, 1, faint))
  context.textAlign = 'center'
  const [host = ''] = wrapped(context, label, WIDTH - 40, 1, font(400, 12))
  text(context, host, WIDTH / 2, HEIGHT - 20, 400, 12, 0.8)
  context.textAlign = 'left'
}

/** Whole dots of the picture for each square, so that no edge is blurred. */
function qr(context: Context, link: string, x: number, y: number, room: number): void {
  const rows = qrRows(link)
  const cell = Math.max(1, Math.floor((room * SCALE) / rows.length)) / SCALE
  const inset = (room - cell * rows.length) / 2
  const begin = (at: number): number => Math.round((at + inset) * SCALE) / SCALE
  context.fillStyle = toCss(BLACK)
  rows.forEach((row, line) =>
    row.forEach((isDark, column) => {
      if (isDark) context.fillRect(begin(x) + column * cell, begin(y) + line * cell, cell, cell)
    }),
  )
}

const font = (weight: number, size: number): string => `${weight} ${size}px ${FONT}`

function text(context: Context, words: string, x: number, y: number, weight: number, size: number, alpha = 1, colour = WHITE): void {
  context.font = font(weight, size)
  context.globalAlpha = alpha
  context.fillStyle = toCss(colour)
  context.fillText(words, x, y)
  context.globalAlpha = 1
}

/** `roundRect` is not there in older browsers and mini-programs. */
function rounded(context: Context, x: number, y: number, width: number, height: number, radius: number): void {
  context.beginPath()
  context.moveTo(x + radius, y)
  context.arcTo(x + width, y, x + width, y + height, radius)
  context.arcTo(x + width, y + height, x, y + height, radius)
  context.arcTo(x, y + height, x, y, radius)
  context.arcTo(x, y, x + width, y, radius)
  context.closePath()
}

/** Returns a text in lines of a width: broken between words, between Chinese characters anywhere; the last one may be cut. */
export function wrapped(context: Pick<Context, 'measureText' | 'font'>, words: string, width: number, most: number, face: string): string[] {
  context.font = face
  const fits = (line: string): boolean => context.measureText(line.trimEnd()).width <= width
  const lines: string[] = []
  let line = ''
  const pieces = words.match(/[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f]|\s+|[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f]+/g) ?? []
  for (const piece of pieces.flatMap((one) => (fits(one) ? [one] : Array.from(one)))) {
    if (line.trim() === '' || fits(line + piece) || NO_BEGIN.test(piece)) {
      line = line.trim() === '' ? piece.trimStart() : line + piece
      continue
    }
    lines.push(line.trimEnd())
    line = piece.trimStart()
  }
  if (line.trim() !== '') lines.push(line.trimEnd())
  if (lines.length <= most) return lines
  const kept = lines.slice(0, most)
  let last = kept[most - 1] ?? ''
  while (last !== '' && !fits(`${last}…`)) last = Array.from(last).slice(0, -1).join('')
  return [...kept.slice(0, -1), `${last}…`]
}

