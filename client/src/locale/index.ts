import { en } from './en'
import { zh } from './zh'

export type Language = 'zh' | 'en'
export type Key = keyof typeof zh

export const texts: Record<Language, Record<Key, string>> = { zh, en }
