/** What is kept on the device. A device that keeps nothing (private windows, a full store) goes on without. */

const PREFIX = 'banyan.'

export function recall(name: string): string {
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
  } catch {
    // Nothing is kept then.
  }
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
