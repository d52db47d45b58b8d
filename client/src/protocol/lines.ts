import { Utf8Decoder } from './utf8'

/** Bytes in any split go in, whole lines come out, without their line ends (LF or CRLF). */
export class LineBuffer {
  private readonly decoder = new Utf8Decoder()
  private rest = ''

  /** Returns the lines that are complete by now. */
  push(bytes: Uint8Array): string[] {
    const text = this.rest + this.decoder.push(bytes)
    const lines = text.split('\n')
    this.rest = lines.pop() ?? ''
    return lines.map(withoutReturn)
  }

  /** Ends the text: returns the last line where the body ended without a line end. */
  end(): string[] {
    const last = this.rest + this.decoder.end()
    this.rest = ''
    return last === '' ? [] : [withoutReturn(last)]
  }
}

function withoutReturn(line: string): string {
  return line.endsWith('\r') ? line.slice(0, -1) : line
}
