/** Moments, as people read them. */

import { look } from './look'

const two = (number: number): string => String(number).padStart(2, '0')

/** Returns "14:05" today, "11-26 14:05" this year, else the whole date. */
export function roughTime(iso: string, now = new Date()): string {
  const at = new Date(iso)
  if (Number.isNaN(at.getTime())) return ''
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`
  if (at.toDateString() === now.toDateString()) return time
  const day = `${two(at.getMonth() + 1)}-${two(at.getDate())}`
  return at.getFullYear() === now.getFullYear() ? `${day} ${time}` : `${at.getFullYear()}-${day}`
}

export function date(iso: string): string {
  const at = new Date(iso)
  return look.language === 'zh'
    ? `${at.getFullYear()}年${at.getMonth() + 1}月${at.getDate()}日`
    : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
}
