/** UTF-8 that arrives in pieces. Phones' mini-programs have no TextDecoder, so this is written out. */

const REPLACEMENT = '\uFFFD'

/** How many bytes a character has that begins with `byte`; 0 for a byte that begins none. */
function lengthOf(byte: number): number {
  if (byte < 0x80) return 1
  if (byte >= 0xc2 && byte < 0xe0) return 2
  if (byte >= 0xe0 && byte < 0xf0) return 3
  if (byte >= 0xf0 && byte < 0xf5) return 4
  return 0
}

/** Whether `byte` may be the second byte of a character that begins with `first`: no overlong form, no surrogate. */
function mayFollow(first: number, byte: number): boolean {
  if (first === 0xe0) return byte >= 0xa0 && byte < 0xc0
  if (first === 0xed) return byte >= 0x80 && byte < 0xa0
  if (first === 0xf0) return byte >= 0x90 && byte < 0xc0
  if (first === 0xf4) return byte >= 0x80 && byte < 0x90
  return byte >= 0x80 && byte < 0xc0
}

/** Decodes bytes in any split; a character that is cut in two waits for its rest. */
export class Utf8Decoder {
  private wanted = 0
  private seen: number[] = []

  /** Returns the text of all characters that are complete by now; what is no UTF-8 becomes U+FFFD. */
  push(bytes: Uint8Array): string {
    let text = ''
    for (let i = 0; i < bytes.length; i += 1) text += this.take(bytes[i] as number)
    return text
  }

  /** Ends the text: a character that was never completed becomes U+FFFD. */
  end(): string {
    const rest = this.seen.length > 0 ? REPLACEMENT : ''
    this.seen = []
    return rest
  }

  private take(byte: number): string {
    const [first] = this.seen
    if (first === undefined) return this.begin(byte)
    const fits = this.seen.length === 1 ? mayFollow(first, byte) : byte >= 0x80 && byte < 0xc0
    if (!fits) {
      this.seen = []
      return REPLACEMENT + this.begin(byte)
    }
    this.seen.push(byte)
    return this.seen.length < this.wanted ? '' : this.finish()
  }

  private begin(byte: number): string {
    this.wanted = lengthOf(byte)
    if (this.wanted === 1) return String.fromCharCode(byte)
    if (this.wanted === 0) return REPLACEMENT
    this.seen = [byte]
    return ''
  }

  private finish(): string {
    const [first = 0, ...rest] = this.seen
    let point = first & (0xff >> (this.wanted + 1))
    for (const byte of rest) point = (point << 6) | (byte & 0x3f)
    this.seen = []
    return String.fromCodePoint(point)
  }
}
