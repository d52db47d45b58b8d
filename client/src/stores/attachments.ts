/** What stands in the composer beside the text: chosen, on its way to the server, there, or not taken. */

import { computed, markRaw, reactive, ref } from 'vue'
import * as api from '@/api/chat'
import { Refused } from '@/api/client'
import { type Picked, renewed } from '@/transport/platform'
import { brand, model } from './brand'
import { t } from './look'
import { give } from './pictures'
import { names, randomId, recall, remember } from './storage'
import { isLoggedIn, isOwn, own } from './user'

export interface Item {
  key: string
  kind: 'image' | 'text'
  name: string
  /** `kept`: the server has it. A log-in may come before an upload: until then it waits. */
  state: 'waiting' | 'sending' | 'kept' | 'failed'
  /** 0…100, of the upload. */
  progress: number
  /** Why it failed, in words for the person. */
  failure: string
  kept?: api.Attachment
  /** What it was made from, as long as the app is open: it can be uploaded again. */
  picked?: Picked
  /** It belongs to a question already, and is not thrown away with it. */
  isSent: boolean
}

/** By whose it is, and the conversation that is open or "new" (`own`): what is attached waits there, as the draft does. */
const lists = reactive(new Map<string, Item[]>())
const here = ref('new')
/** What was picked, by the id that the server gave it: a question that is refused comes back with what can go up again. */
const origins = new Map<string, Picked>()

export const items = computed<Item[]>(() => lists.get(own(here.value)) ?? [])
export const isUploading = computed(() => items.value.some(({ state }) => state === 'sending' || state === 'waiting'))
export const hasFailed = computed(() => items.value.some(({ state }) => state === 'failed'))
/** How many files the server takes with one message. */
export const mostFiles = computed(() => brand.front.attachments.per_message)
/** More than it takes: a question came back with its files to others, or the limit was changed. */
export const isTooMany = computed(() => items.value.length > mostFiles.value)
export const tooMany = (): string => t('tooManyFiles', { count: String(mostFiles.value) })
/** Whether there is anything: then a question needs no words. */
export const hasSome = computed(() => items.value.length > 0)
/** Pictures for a model that takes none. */
export const isBlind = computed(() => model.value?.images === false && items.value.some(({ kind }) => kind === 'image'))
export const isReady = computed(() => items.value.every(({ state }) => state === 'kept') && !isBlind.value && !isTooMany.value)

/** Shows what waits in another place. */
export function turnTo(place: string): void {
  here.value = place
  lists.set(own(place), waiting(own(place)))
}

const waiting = (name: string): Item[] => lists.get(name) ?? recalled(name).map(itemOf)

/** A new conversation has its id now. */
export function settle(place: string): void {
  lists.set(own(place), waiting(own('new')))
  drop(own('new'))
  if (here.value === 'new') here.value = place
  note(own(place))
}

/** Begins with what a question has that is being edited. */
export function editing(messageId: string, files: readonly api.Attachment[]): void {
  lists.set(own(`edit.${messageId}`), files.map((file) => ({ ...itemOf(file), isSent: true })))
  here.value = `edit.${messageId}`
}

/** Adds what was chosen, and uploads it; returns what is to be said of what was not added. */
export function add(chosen: readonly Picked[]): string {
  let told = ''
  const list = lists.get(own(here.value)) ?? []
  for (const picked of chosen) {
    if (list.length >= mostFiles.value) told = tooMany()
    else if (picked.size > brand.front.attachments.file_bytes) told = t('fileTooLarge', { name: picked.name })
    else if (picked.isImage && model.value?.images === false) told = t('imagesNotTaken')
    else {
      list.push({
        key: randomId(),
        kind: picked.isImage ? 'image' : 'text',
        name: picked.name,
        state: 'waiting',
        progress: 0,
        failure: '',
        // A browser takes no file that is watched.
        picked: markRaw(picked),
        isSent: false,
      })
    }
  }
  lists.set(own(here.value), list)
  uploadWaiting()
  return told
}

/** Uploads what waits of one's own, in every place; without a log-in it goes on waiting, and so does another's. */
export function uploadWaiting(): void {
  if (!isLoggedIn.value) return
  for (const [name, list] of lists) {
    if (isOwn(name)) for (const item of list) if (item.state === 'waiting') void upload(item)
  }
}

export function retry(item: Item): void {
  if (item.picked === undefined || item.state !== 'failed') return
  item.state = 'waiting'
  uploadWaiting()
}

async function upload(item: Item): Promise<void> {
  if (item.picked === undefined) return
  Object.assign(item, { state: 'sending', progress: 0, failure: '' })
  try {
    const kept = await api.attach(item.picked, (percent) => (item.progress = percent))
    Object.assign(item, { state: 'kept', kind: kept.kind, name: kept.name, kept })
    // Its conversation may have been left meanwhile; the person too, and then it is another's, or in no list.
    for (const [name, list] of lists) {
      if (!list.includes(item)) continue
      if (isOwn(name) && item.picked.preview !== '') give(kept.id, item.picked.preview)
      origins.set(kept.id, item.picked)
      note(name)
    }
  } catch (failure) {
    if (!(failure instanceof Refused)) throw failure
    // A log-in that is over is no fault of the file's: it goes once there is another.
    const isOver = failure.refusal.code === -1
    Object.assign(item, { state: isOver ? 'waiting' : 'failed', failure: failure.refusal.msg || t('offline') })
  }
}

export function remove(item: Item): void {
  const list = lists.get(own(here.value)) ?? []
  lists.set(
    own(here.value),
    list.filter(({ key }) => key !== item.key),
  )
  if (item.kept !== undefined && !item.isSent) void api.dropAttachment(item.kept.id).catch(() => undefined)
  note()
}

/** Takes what is to be sent out of the composer. */
export function take(): api.Attachment[] {
  const taken = items.value.flatMap(({ kept }) => (kept === undefined ? [] : [kept]))
  lists.set(own(here.value), [])
  note()
  return taken
}

/** Puts back what was not sent after all: a log-in or a payment came between. */
export function putBack(files: readonly api.Attachment[], name = own(here.value)): void {
  const list = waiting(name)
  const known = new Set(list.map(({ kept }) => kept?.id))
  lists.set(name, [...files.filter(({ id }) => !known.has(id)).map(itemOf), ...list])
  note(name)
}

/** Has what waited under one name wait under another, which is another account's unless `isSame`. */
export function move(from: string, to: string, isSame: boolean): void {
  const came = waiting(from)
  drop(from)
  // What one account has uploaded no other may send: it goes up once more.
  const moved = isSame ? came : came.flatMap((item) => (item.kept === undefined ? item : afresh(item)))
  lists.set(to, [...moved, ...waiting(to)])
  note(to)
}

function afresh(item: Item): Item[] {
  if (item.picked === undefined) return []
  return [{ ...item, state: 'waiting', kept: undefined, picked: markRaw(renewed(item.picked)) }]
}

/** Forgets all that is somebody's, who left. */
export function forget(owner: string): void {
  for (const name of [...lists.keys(), ...names('attached.').map((one) => one.slice('attached.'.length))]) {
    if (isOwn(name, owner)) drop(name)
  }
  origins.clear()
  here.value = 'new'
}

function drop(name: string): void {
  lists.delete(name)
  remember(`attached.${name}`, '')
}

// --- over a reload

function note(name = own(here.value)): void {
  if (name.includes('edit.')) return
  const kept = (lists.get(name) ?? []).flatMap((item) => (item.kept === undefined ? [] : [item.kept]))
  remember(`attached.${name}`, kept.length === 0 ? '' : JSON.stringify(kept))
}

function recalled(name: string): api.Attachment[] {
  try {
    const known: unknown = JSON.parse(recall(`attached.${name}`) || '[]')
    return Array.isArray(known) ? (known as api.Attachment[]) : []
  } catch {
    return []
  }
}

// What waited before a reload is there at once, as the draft is.
turnTo('new')

function itemOf(kept: api.Attachment): Item {
  const { id, kind, name } = kept
  return { key: id, kind, name, state: 'kept', progress: 100, failure: '', kept, picked: origins.get(id), isSent: false }
}
