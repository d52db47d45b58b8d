/** What is kept on the device. One that keeps nothing (private windows, a full store) has it as long as the app is open. */

const PREFIX = 'banyan.'
const unkept = new Map<string, string>()

export function recall(name: string): string {
  const own = unkept.get(name)
  if (own !== undefined) return own
  try {
    const value: unknown = uni.getStorageSync(PREFIX + name)
    return typeof value === 'string' ? value : ''
  } catch {
    return ''
  }
}

export function remember(name: string, value: string): void {
  try {
    if (value === '') uni.removeStorageSync(PREFIX + name)
    else uni.setStorageSync(PREFIX + name, value)
    unkept.delete(name)
  } catch {
    unkept.set(name, value)
  }
}

/** Returns the names that begin so, of all that is kept. */
export function names(start: string): string[] {
  const here = [...unkept.keys()]
  try {
    here.push(...uni.getStorageInfoSync().keys.filter((key) => key.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length)))
  } catch {
    // What is not kept cannot be found either.
  }
  return here.filter((name) => name.startsWith(start))
}

/** A random id: good for message keys and for the device's own, not for secrets. */
export function randomId(): string {
  const part = (): string => Math.floor(Math.random() * 0x100000000).toString(36)
  return `${Date.now().toString(36)}-${part()}${part()}${part()}`
}

/** The device's id, which invitations and sign-in bonuses ask for. */
export function deviceId(): string {
  const known = recall('device')
  if (known !== '') return known
  const made = randomId()
  remember('device', made)
  return made
}
