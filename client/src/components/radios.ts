/** One of several, by the keyboard: Tab comes to the group once, and arrows go round in it. */

const STEPS: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }

/** Returns the one that Tab comes to: what is chosen, or the first where nothing that can be had is. */
export function stopOf(options: readonly string[], chosen: string): string | undefined {
  return options.includes(chosen) ? chosen : options[0]
}

/** Returns what a key leads to from one of them; undefined for keys that lead nowhere. */
export function nextOf(options: readonly string[], from: string, key: string): string | undefined {
  const step = STEPS[key]
  const at = options.indexOf(from)
  if (step === undefined || at < 0) return undefined
  return options[(at + step + options.length) % options.length]
}
