/** Micro-yuan as texts, shown to people. No floating point: they may be larger than a number holds exactly. */

const MICRO = 6

/** Returns an amount as yuan, "12.34"; of less than a hundredth as many digits as it has. */
export function yuan(micro: string, digits = 2): string {
  const negative = micro.startsWith('-')
  const padded = micro.replace(/^[-+]/, '').padStart(MICRO + 1, '0')
  const whole = padded.slice(0, -MICRO)
  const fraction = padded.slice(-MICRO).replace(/0+$/, '')
  return `${negative ? '−' : ''}${whole}.${fraction.padEnd(digits, '0')}`
}

/** Returns an amount rounded down to hundredths, as balances are shown at a glance. */
export function roughYuan(micro: string): string {
  const exact = yuan(micro)
  const point = exact.indexOf('.')
  return exact.slice(0, point + 3)
}

export function isMore(one: string, other: string): boolean {
  const length = Math.max(one.length, other.length)
  return one.padStart(length, '0') > other.padStart(length, '0')
}
