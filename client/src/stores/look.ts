/** Theme, language, text size and the window: what every page looks like. */

import { computed, reactive, watch } from 'vue'
import { around } from '@/api/client'
import { type Key, type Language, texts } from '@/locale'

export type { Key, Language }
import { IS_PAGE, dress, onKeyboard } from '@/transport/platform'
import { brand } from './brand'
import { tints } from './colours'
import { recall, remember } from './storage'

export type Theme = 'auto' | 'light' | 'dark'
export const SIZES = [14, 16, 18, 20] as const

const kept = {
  theme: recall('theme'),
  language: recall('language'),
  size: Number(recall('size')),
}

export const look = reactive({
  theme: (['light', 'dark'].includes(kept.theme) ? kept.theme : 'auto') as Theme,
  language: (['zh', 'en'].includes(kept.language) ? kept.language : systemLanguage()) as Language,
  size: (SIZES.find((size) => size === kept.size) ?? 16) as number,
  /** Whether long lines of code go on in the next line. */
  wraps: recall('wraps') === '1',
  systemDark: systemDark(),
  width: uni.getWindowInfo().windowWidth,
  /** How much of the window's height a phone's keyboard hides, px. */
  keyboard: 0,
})

/** From here on a page has a pane for the conversations beside the one for the chat. */
export const WIDE = 760

export const isWide = computed(() => look.width >= WIDE)
export const isDark = computed(() => (look.theme === 'auto' ? look.systemDark : look.theme === 'dark'))
export const background = computed(() => (isDark.value ? '#16171a' : '#ffffff'))

/** The style of a page's outermost view: the tenant's colour, and the text size. */
export const rootStyle = computed(() => {
  const colours = tints(brand.front.primary_color, isDark.value)
  return {
    '--brand': colours.brand,
    '--brand-text': colours.brandText,
    '--brand-soft': colours.brandSoft,
    '--wot-color-theme': colours.brand,
    '--size': `${look.size}px`,
    '--keyboard': `${look.keyboard}px`,
  }
})
export const rootClass = computed(() => (isDark.value ? 'app dark wot-theme-dark' : 'app light'))

/** Returns a text in the chosen language; `{name}` in it stands for a value. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  return texts[look.language][key].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole))
}

export function chooseTheme(theme: Theme): void {
  look.theme = theme
  remember('theme', theme === 'auto' ? '' : theme)
}

export function chooseLanguage(language: Language): void {
  look.language = language
  remember('language', language)
}

export function chooseSize(size: number): void {
  look.size = size
  remember('size', String(size))
}

export function wrapCode(wraps: boolean): void {
  look.wraps = wraps
  remember('wraps', wraps ? '1' : '')
}

/** Follows the system and the window from the start of the app. */
export function watchSurroundings(): void {
  uni.onWindowResize?.(({ size }) => {
    look.width = size.windowWidth
  })
  onKeyboard((height) => {
    look.keyboard = height
  })
  uni.onThemeChange?.(({ theme }) => {
    look.systemDark = theme === 'dark'
  })
  if (IS_PAGE && typeof matchMedia === 'function') {
    const query = matchMedia('(prefers-color-scheme: dark)')
    query.addEventListener?.('change', () => {
      look.systemDark = query.matches
    })
  }
  watch(
    [isDark, () => look.language, () => brand.front.title],
    () => {
      around.language = look.language === 'en' ? 'en' : 'zh-CN'
      around.offline = t('offline')
      dress({ dark: isDark.value, background: background.value, language: look.language, title: brand.front.title })
    },
    { immediate: true },
  )
}

function systemLanguage(): Language {
  return uni.getAppBaseInfo().language?.toLowerCase().startsWith('zh') ? 'zh' : 'en'
}

function systemDark(): boolean {
  if (IS_PAGE) return typeof matchMedia === 'function' && matchMedia('(prefers-color-scheme: dark)').matches
  return (uni.getAppBaseInfo() as { theme?: string }).theme === 'dark'
}
