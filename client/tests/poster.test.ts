import { describe, expect, it } from 'vitest'
import { type Context, HEIGHT, type Poster, SCALE, WIDTH, paint, wrapped } from '@/stores/poster'
import { qrRows } from '@/stores/qr'

/** A context that notes texts, squares and pictures; a Chinese character is as wide as the font, another half of it. */
function noting(): { context: Context; texts: string[]; squares: number[][]; pictures: number } {
  const noted = { texts: [] as string[], squares: [] as number[][], pictures: 0 }
  const context = new Proxy({ font: '16px x', fillStyle: '' } as Record<string, unknown>, {
    get: (kept, name: string) => {
      if (name === 'measureText') {
        const size = Number(/(\d+)px/.exec(String(kept.font))?.[1])
        return (text: string) => ({ width: Array.from(text).reduce((sum, one) => sum + (one > '\u2e7f' ? size : size / 2), 0) })
      }
      if (name === 'fillText') return (text: string) => noted.texts.push(text)
      if (name === 'fillRect') return (...box: number[]) => kept.fillStyle === 'rgb(0, 0, 0)' && noted.squares.push(box)
      if (name === 'drawImage') return () => (noted.pictures += 1)
      if (name === 'createLinearGradient') return () => ({ addColorStop: () => undefined })
      return name in kept ? kept[name] : () => undefined
    },
    set: (kept, name: string, value) => {
      kept[name] = value
      return true
    },
  }) as unknown as Context
  return Object.assign(noted, { context })
}

const POSTER: Poster = {
  title: 'Aurora',
  slogan: 'Answers',
  colour: '#4f46e5',
  dark: false,
  headline: ['Ann invites you', 'to Aurora'],
  prompts: ['Why?', 'How?'],
  reward: '',
  scan: 'Scan',
  code: 'Code ABC',
  link: 'https://aurora.example/i/ABCDEFGH',
  label: 'aurora.example',
}

describe('a poster', () => {
  it('says whose it is, who invites, and where to', () => {
    const noted = noting()
    paint(noted.context, POSTER)
    expect(noted.texts.filter(Boolean)).toEqual(['A', 'Aurora', 'Answers', 'Ann invites you', 'to Aurora', 'Why?', 'How?', 'Scan', 'Code ABC', 'aurora.example'])
  })

  it('has the logo in the letter’s place', () => {
    const noted = noting()
    paint(noted.context, { ...POSTER, slogan: '' }, {} as CanvasImageSource)
    expect([noted.pictures, noted.texts.includes('A')]).toEqual([1, false])
  })

  it('has the mini-program’s own code in the place of the link’s', () => {
    const noted = noting()
    paint(noted.context, POSTER, undefined, {} as CanvasImageSource)
    expect([noted.pictures, noted.squares.length, noted.texts.includes('A')]).toEqual([1, 0, true])
  })

  it.each([true, false])('has the link’s code whole, in squares of whole dots, on the picture (dark: %s)', (dark) => {
    const noted = noting()
    paint(noted.context, { ...POSTER, dark })
    expect(noted.squares.length).toBe(qrRows(POSTER.link).flat().filter(Boolean).length)
    for (const [x = 0, y = 0, width = 0] of noted.squares) {
      expect([x, y, width].map((one) => Math.abs(one * SCALE - Math.round(one * SCALE)) < 1e-6)).toEqual([true, true, true])
      expect(width * SCALE).toBeGreaterThanOrEqual(4)
      expect(x > 0 && y > 0 && x + width < WIDTH && y + width < HEIGHT).toBe(true)
    }
  })
})

describe('a text in lines', () => {
  const lines = (text: string, width: number, most = 9) => wrapped(noting().context, text, width, most, '400 10px x')

  it('breaks between words, and between Chinese characters', () => {
    expect(lines('Ann invites you', 50)).toEqual(['Ann', 'invites', 'you'])
    expect(lines('小王邀请你一起用', 40)).toEqual(['小王邀请', '你一起用'])
    expect(lines('小王 invites 你', 50)).toEqual(['小王', 'invites 你'])
  })

  it('begins no line with a comma, breaks a word that is too long, and is cut at its end', () => {
    expect(lines('一二三四，五', 40)).toEqual(['一二三四，', '五'])
    expect(lines('aaaaaaaaaaaa', 25)).toEqual(['aaaaa', 'aaaaa', 'aa'])
    expect(lines('Ann invites you', 50, 2)).toEqual(['Ann', 'invites…'])
    expect(lines('', 50)).toEqual([])
  })
})
