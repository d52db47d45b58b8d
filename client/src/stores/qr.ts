/** A QR code as rows of dark and light: drawn with plain views, on a page and in a mini-program alike. */

import make from 'qrcode-generator'

export function qrRows(text: string): boolean[][] {
  const code = make(0, 'M')
  code.addData(text, 'Byte')
  code.make()
  const size = code.getModuleCount()
  return Array.from({ length: size }, (_, y) => Array.from({ length: size }, (__, x) => code.isDark(y, x)))
}
