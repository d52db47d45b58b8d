/** The keyboard's place on a page. A mini-program has no keyboard to lead: nothing happens there. */

interface Layer {
  id: string
  close: () => void
  /** What had the focus before, and gets it back. */
  from: HTMLElement | null
}

/** What lies over the page, the topmost last: that one alone has the keyboard. */
const layers: Layer[] = []

/** Keeps the keyboard within the element of this id until it is let go; Escape closes it. */
export function holdFocus(id: string, close: () => void): void {
  // #ifdef H5
  if (layers.length === 0) document.addEventListener('keydown', keep, true)
  layers.push({ id, close, from: document.activeElement as HTMLElement | null })
  enter(id, 20)
  // #endif
  void id
  void close
}

/** Gives the keyboard back to where it was. */
export function releaseFocus(id: string): void {
  // #ifdef H5
  const at = layers.findIndex((layer) => layer.id === id)
  if (at < 0) return
  const [layer] = layers.splice(at, 1)
  if (layers.length === 0) document.removeEventListener('keydown', keep, true)
  if (layer?.from?.isConnected) layer.from.focus()
  // #endif
  void id
}

/** Puts the keyboard into a field. */
export function focusOn(field: string): void {
  // #ifdef H5
  document.querySelector<HTMLElement>(field)?.focus()
  // #endif
  void field
}

// #ifdef H5
function stops(id: string): HTMLElement[] {
  const found = document.getElementById(id)?.querySelectorAll<HTMLElement>('a[href], input, textarea, [tabindex="0"]') ?? []
  return [...found].filter((one) => one.getClientRects().length > 0)
}

/** A sheet is drawn a little after it was asked for. */
function enter(id: string, tries: number): void {
  if (layers[layers.length - 1]?.id !== id) return
  const [first] = stops(id)
  if (first) first.focus()
  else if (tries > 0) setTimeout(() => enter(id, tries - 1), 25)
}

function keep(event: KeyboardEvent): void {
  const layer = layers[layers.length - 1]
  // uni-app's own dialogs lie over everything.
  if (layer === undefined || event.isComposing || document.querySelector('uni-modal') !== null) return
  if (event.key === 'Escape') {
    event.preventDefault()
    layer.close()
  } else if (event.key === 'Tab') {
    const all = stops(layer.id)
    const next = all.indexOf(document.activeElement as HTMLElement) + (event.shiftKey ? -1 : 1)
    event.preventDefault()
    all[(next + all.length) % all.length]?.focus()
  }
}
// #endif
