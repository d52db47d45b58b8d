/** A tenant's one colour, as the few that a page needs of it; each readable on its ground. */

export type Rgb = [number, number, number]

export interface Tints {
  /** Grounds of buttons; white stands on it readably. */
  brand: string
  /** Texts and icons on the page's ground. */
  brandText: string
  /** A faint ground, for bubbles and chosen things. */
  brandSoft: string
}

const WHITE: Rgb = [255, 255, 255]
const BLACK: Rgb = [0, 0, 0]
const READABLE = 4.5 // WCAG AA, for texts

export function tints(colour: string, dark: boolean): Tints {
  const given = parse(colour)
  const page: Rgb = dark ? [31, 33, 37] : WHITE
  const share = dark ? 0.24 : 0.1
  // The hardest ground that such texts stand on is the faint one.
  const soft = mix(page, given, share)
  return {
    brand: toCss(until(given, BLACK, WHITE)),
    brandText: toCss(until(given, dark ? WHITE : BLACK, soft)),
    brandSoft: `rgba(${given.join(', ')}, ${share})`,
  }
}

/** Moves a colour towards another one until it can be read against a ground. */
export function until(from: Rgb, towards: Rgb, ground: Rgb): Rgb {
  for (let share = 0; share < 1; share += 0.05) {
    const mixed = mix(from, towards, share)
    if (contrast(mixed, ground) >= READABLE) return mixed
  }
  return towards
}

export function mix(from: Rgb, towards: Rgb, share: number): Rgb {
  return from.map((part, i) => Math.round(part + ((towards[i] ?? 0) - part) * share)) as Rgb
}

export function contrast(one: Rgb, other: Rgb): number {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a) as [number, number]
  return (high + 0.05) / (low + 0.05)
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((part) => {
    const share = part / 255
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4
  }) as Rgb
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

export function parse(colour: string): Rgb {
  const found = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(colour)
  return found ? [parseInt(found[1] ?? '', 16), parseInt(found[2] ?? '', 16), parseInt(found[3] ?? '', 16)] : [15, 118, 110]
}

export const toCss = (colour: Rgb): string => `rgb(${colour.join(', ')})`

/** White letters stand on each of them readably. */
export const HUES = ['#4f46e5', '#0f766e', '#b45309', '#be185d', '#1d4ed8', '#7c3aed', '#15803d', '#c2410c'] as const

/** Returns a colour that is always the same one for a name: assistants are told apart before they are read. */
export function hueOf(name: string): string {
  let sum = 0
  for (const one of name) sum = (sum * 31 + (one.codePointAt(0) ?? 0)) % 65_521
  return HUES[sum % HUES.length] ?? HUES[0]
}
