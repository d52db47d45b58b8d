/** The conversation that is open: its messages, and the answer that is under way. */

import { computed, reactive } from 'vue'
import * as api from '@/api/chat'
import { around } from '@/api/client'
import { type Answer, newAnswer } from '@/protocol/answer'
import { NOT_LOGGED_IN, type Detour, type Reaction, comeBack as cameBack, detour, reactionTo } from '@/protocol/reactions'
import { type Refusal, refusalOf } from '@/protocol/events'
import type { Ask, Carrier } from '@/transport/carrier'
import { Session } from '@/transport/session'
import { onWake, ways } from '@/transport/platform'
import * as attachments from './attachments'
import { choice } from './brand'
import { history, refreshHistory } from './history'
import { t } from './look'
import { sells } from './site'
import { names, randomId, recall, remember } from './storage'
import { alternatives, branch } from './tree'
import { isLoggedIn, isOwn, onCome, onLeave, own, refreshBalance, user } from './user'

/** At most one render in so many milliseconds, however fast an answer comes. */
const RENDER = 50
/** How long a stopped answer may take to say that it has stopped, ms. */
const STOPPING = 6000

export interface Live {
  question: string
  files: api.Attachment[]
  /** Whether it stands nowhere else yet: then it comes back, whatever became of its answer. */
  isWritten: boolean
  parent: string | null
  answer: Answer
  isWaiting: boolean
  isStopping: boolean
}

interface State {
  id: string
  title: string
  role: api.Role | undefined
  messages: api.Message[]
  through: string | undefined
  live: Live | undefined
  isLoading: boolean
  isWhole: boolean
  draft: string
  /** The message whose question is being edited. */
  editing: string
  detour: Detour
}

const EMPTY = (): Omit<State, 'draft' | 'detour'> => ({
  id: '',
  title: '',
  role: undefined,
  messages: [],
  through: undefined,
  live: undefined,
  isLoading: false,
  isWhole: true,
  editing: '',
})

export const chat = reactive<State>({ ...EMPTY(), draft: recall(draftOf('new')), detour: knownDetour() })

/** What is shown, without the answer under way: that one's question stands behind its parent. */
export const shown = computed<api.Message[]>(() => {
  const path = branch(chat.messages, chat.through)
  const { live } = chat
  if (live === undefined) return path
  const at = path.findIndex(({ id }) => id === live.parent)
  return path.slice(0, at + 1)
})

export function others(message: api.Message): api.Message[] {
  return alternatives(chat.messages, message)
}

export const isBusy = computed(() => chat.live !== undefined)

let session: Session | undefined
let carriers: Carrier[] | undefined
let firstWay = 0
/** Where a refusal leads: set by the page, which knows its router. */
let lead: (reaction: Reaction) => void = () => undefined

onWake(() => session?.wake())
onLeave((isOver, owner) => {
  const place = here()
  if (isOver) {
    const { live } = chat
    // One that is on its way is refused as well, when nobody hears it any more.
    if (live?.isWritten && live.answer.messageId === '') giveBack(live.question, live.files, place, owner)
    if (chat.editing !== '' && chat.draft.trim() !== edited()?.question) giveBack(chat.draft, [], place, owner)
    if (owner !== '' && chat.detour.at === 'nowhere') turn({ at: 'login', owner, place })
  } else {
    attachments.forget(owner)
    names('draft.').filter((name) => isOwn(name.slice('draft.'.length), owner)).forEach((name) => remember(name, ''))
    turn({ at: 'nowhere' })
  }
  startAnew()
})
onCome((from, isSame) => {
  if (from !== user.owner) {
    takeOver(from, 'new', 'new', isSame)
    if (chat.id !== '') takeOver(from, chat.id, chat.id, isSame)
    // A guest's conversation is no other account's, but what was being asked there goes on.
    const { detour: way } = chat
    if (way.at !== 'nowhere' && way.owner === from && way.place !== 'new') takeOver(from, way.place, 'new', isSame)
  }
  if (chat.editing === '') chat.draft = recall(draftOf(here()))
})

export function onReaction(then: (reaction: Reaction) => void): void {
  lead = then
}

const lost = (): Refusal => refusalOf({ type: 'network' }, t('offline'))

// --- where one is, and what waits there

const here = (): string => chat.id || 'new'
const edited = (): api.Message | undefined => chat.messages.find(({ id }) => id === chat.editing)

function draftOf(place: string, owner = user.owner): string {
  return `draft.${own(place, owner)}`
}

/** Both of two texts that wait for one place; the one that was written first stands above. */
function joined(first: string, then: string): string {
  if (first.trim() === '' || first.trim() === then.trim()) return then
  return then.trim() === '' ? first : `${first}\n\n${then}`
}

/** Puts a question back where it was asked, before what was typed meanwhile. */
function giveBack(question: string, files: api.Attachment[], place: string, owner = user.owner): void {
  attachments.putBack(files, own(place, owner))
  const text = joined(question, recall(draftOf(place, owner)))
  remember(draftOf(place, owner), text)
  if (owner === user.owner && place === here() && chat.editing === '') chat.draft = text
}

function takeOver(from: string, place: string, to: string, isSame: boolean): void {
  attachments.move(own(place, from), own(to), isSame)
  remember(draftOf(to), joined(recall(draftOf(place, from)), recall(draftOf(to))))
  remember(draftOf(place, from), '')
}

/** Some log in or pay on another page, and come back to one that begins anew. */
function turn(way: Detour): void {
  chat.detour = way
  remember('detour', way.at === 'nowhere' ? '' : JSON.stringify(way))
}

function knownDetour(): Detour {
  try {
    return JSON.parse(recall('detour') || '{"at":"nowhere"}') as Detour
  } catch {
    return { at: 'nowhere' }
  }
}

// --- the conversation

export function startAnew(role?: api.Role): void {
  hangUp()
  Object.assign(chat, EMPTY(), { role, draft: recall(draftOf('new')) })
  attachments.turnTo('new')
}

export async function open(id: string, through?: string): Promise<void> {
  hangUp()
  const known = history.list.find((one) => one.id === id)
  Object.assign(chat, EMPTY(), { id, title: known?.title ?? '', through, isLoading: true, draft: recall(draftOf(id)) })
  attachments.turnTo(id)
  try {
    const messages = await api.messages(id)
    if (chat.id !== id) return
    Object.assign(chat, { messages: messages.filter(({ state }) => state !== 'running'), isWhole: messages.length < 50 })
    const running = messages.find(({ state }) => state === 'running')
    if (running !== undefined) follow(running)
    if (known === undefined) chat.title = (await api.conversation(id)).title
  } finally {
    if (chat.id === id) chat.isLoading = false
  }
}

export async function earlier(): Promise<void> {
  if (chat.isWhole || chat.isLoading || chat.id === '') return
  const { id } = chat
  chat.isLoading = true
  try {
    const older = await api.messages(id, chat.messages[0])
    if (chat.id === id) Object.assign(chat, { messages: [...older, ...chat.messages], isWhole: older.length < 50 })
  } finally {
    chat.isLoading = false
  }
}

/** Keeps what is typed, for each conversation, over a reload too. */
export function keepDraft(text: string): void {
  chat.draft = text
  if (chat.editing === '') remember(draftOf(here()), text)
}

/** What is typed for the next question; while another is edited it waits. */
const typed = (): string => (chat.editing === '' ? chat.draft : recall(draftOf(here())))

/** Goes on where a log-in or a payment came between: what was not sent waits there. */
export function comeBack(): void {
  attachments.uploadWaiting()
  const { now, place } = cameBack(chat.detour, isLoggedIn.value ? user.owner : undefined)
  turn(now)
  if (place !== undefined && place !== 'new' && place !== chat.id) void open(place).catch(() => undefined)
}

// --- asking

/** Asks what is in the composer: a new question, or one in place of another. */
export function send(text = chat.draft): void {
  const question = text.trim()
  if ((question === '' && !attachments.hasSome.value) || isBusy.value) return
  const { editing } = chat
  if (!isLoggedIn.value) {
    refused(question, refusalOf({ code: NOT_LOGGED_IN, type: 'login_required' }), false)
    return
  }
  if (!attachments.isReady.value) return
  const files = attachments.take()
  const ids = files.map(({ id }) => id)
  if (editing === '') {
    // A suggestion leaves alone what is typed.
    if (text === chat.draft) keepDraft('')
  } else {
    const parent = edited()?.parent_id ?? null
    // What waited before is there again; the edited question was no draft.
    stopEditing()
    ask(question, parent, { edit: editing, message: question, attachments: ids }, files)
    return
  }
  const last = shown.value[shown.value.length - 1]
  const asked: Ask = {
    message: question,
    attachments: ids.length > 0 ? ids : undefined,
    conversation: chat.id || undefined,
    parent: last?.id,
    role: chat.id === '' ? chat.role?.slug : undefined,
  }
  ask(question, last?.id ?? null, asked, files)
}

export function regenerate(message: api.Message): void {
  if (isBusy.value) return
  ask(message.question, message.parent_id, { regenerate: message.id }, message.attachments)
}

export function edit(message: api.Message): void {
  chat.editing = message.id
  chat.draft = message.question
  attachments.editing(message.id, message.attachments)
}

export function stopEditing(): void {
  chat.editing = ''
  chat.draft = recall(draftOf(here()))
  attachments.turnTo(here())
}

function ask(question: string, parent: string | null, wanted: Ask, files: api.Attachment[]): void {
  const key = randomId()
  begin(question, files, parent, { ...wanted, model: choice.model || undefined, client_msg_id: key })
}

/** Attaches to an answer that was under way when the conversation was opened. */
function follow(message: api.Message): void {
  const known = { messageId: message.id, conversationId: chat.id, thinking: message.reasoning }
  const answer: Answer = { ...newAnswer(), phase: 'telling', ...known }
  begin(message.question, message.attachments, message.parent_id, {}, answer)
}

function begin(
  question: string,
  files: api.Attachment[],
  parent: string | null,
  wanted: Ask,
  known?: Answer,
): void {
  const isWritten = known === undefined && wanted.regenerate === undefined
  chat.live = { question, files, isWritten, parent, answer: known ?? newAnswer(), isWaiting: false, isStopping: false }
  carriers ??= ways(() => ({ server: around.server, token: user.token, appId: around.appId, language: around.language }))
  let timer: ReturnType<typeof setTimeout> | undefined
  let latest: Answer | undefined
  const show = (): void => {
    timer = undefined
    if (mine !== session || latest === undefined) return
    if (chat.live !== undefined) chat.live.answer = latest
    if (latest.conversationId !== '' && chat.id === '') {
      const draft = typed()
      chat.id = latest.conversationId
      attachments.settle(chat.id)
      // What was typed meanwhile goes on here, and is not met again in the next new conversation.
      remember(draftOf('new'), '')
      remember(draftOf(chat.id), draft)
      chat.title = titleOf(question, files)
      void refreshHistory().catch(() => undefined)
    }
    if (chat.live?.isStopping && latest.messageId !== '') void tellStop(latest.messageId)
    if (latest.phase === 'whole' || latest.phase === 'refused') void finish(question, latest)
  }
  const mine: Session = new Session({
    ways: carriers,
    firstWay,
    ask: wanted,
    known,
    lost: lost(),
    worked: (way) => {
      firstWay = way
    },
    waiting: (isWaiting) => {
      if (mine === session && chat.live !== undefined) chat.live.isWaiting = isWaiting
    },
    changed: (answer) => {
      latest = answer
      if (answer.phase === 'whole' || answer.phase === 'refused') {
        clearTimeout(timer)
        // A refusal may come while the session is still being made.
        timer = setTimeout(show, 0)
      } else timer ??= setTimeout(show, RENDER)
    },
  })
  session = mine
}

/** As the server calls it. */
function titleOf(question: string, [file]: api.Attachment[]): string {
  const name = file?.kind === 'image' ? t('picture') : (file?.name ?? '')
  return (question || name).slice(0, 40)
}

async function finish(question: string, answer: Answer): Promise<void> {
  const { live } = chat
  if (live === undefined) return
  const refusal = answer.phase === 'refused' ? answer.refusal : undefined
  session = undefined
  if (answer.messageId !== '') {
    const stored = await api.message(answer.messageId).catch(() => undefined)
    if (chat.live !== live) return
    add(stored ?? standIn(question, live, answer))
  } else if (refusal !== undefined && reactionTo(refusal, false, sells.value).kind === 'show') {
    add(standIn(question, live, answer))
  }
  chat.live = undefined
  if (refusal !== undefined) refused(question, refusal, answer.text !== '', live.files, live.isWritten)
  void refreshBalance().catch(() => undefined)
  void refreshHistory().catch(() => undefined)
}

function add(message: api.Message): void {
  chat.messages = [...chat.messages.filter(({ id }) => id !== message.id), message]
  chat.through = message.id
}

/** What was told, where the server cannot be asked for it just now, or never had it. */
function standIn(question: string, { parent, files }: Live, answer: Answer): api.Message {
  const now = new Date().toISOString()
  return {
    id: answer.messageId || `local-${randomId()}`,
    parent_id: parent,
    model: answer.receipt?.model ?? choice.model,
    question,
    attachments: files,
    reasoning: answer.thinking,
    answer: answer.text,
    state: answer.phase === 'whole' ? 'done' : 'failed',
    finish_reason: answer.receipt?.reason ?? '',
    receipt: answer.receipt ?? null,
    failure: answer.refusal ?? null,
    feedback: null,
    created_at: now,
    ended_at: now,
  }
}

function refused(
  question: string,
  refusal: Refusal,
  hasText: boolean,
  files: api.Attachment[] = [],
  isWritten = true,
): void {
  const reaction = reactionTo(refusal, hasText, sells.value)
  turn(detour(chat.detour, reaction, user.owner, here()))
  if (reaction.kind === 'show') return
  // An old question that was asked once more stands where it stood: it joins nothing that was typed meanwhile.
  const waiting = typed().trim()
  if (reaction.takesBack && (isWritten || waiting === '' || waiting === question)) giveBack(question, files, here())
  lead(reaction)
}

// --- stopping

export async function stop(): Promise<void> {
  const { live } = chat
  if (live === undefined || live.isStopping) return
  live.isStopping = true
  if (live.answer.messageId !== '') await tellStop(live.answer.messageId)
}

/** The endpoint stops it, and its readers are told the end; hanging up would stop nothing. */
async function tellStop(messageId: string): Promise<void> {
  const mine = session
  if (stopped.has(messageId)) return
  stopped.add(messageId)
  await api.stop(messageId).catch(() => stopped.delete(messageId))
  setTimeout(() => {
    if (mine !== undefined && mine === session) mine.settle()
  }, STOPPING)
}

const stopped = new Set<string>()

function hangUp(): void {
  session?.leave()
  session = undefined
  chat.live = undefined
}

/** A message that exists here alone: its question was refused before it had a place. */
export function isLocal(message: api.Message): boolean {
  return message.id.startsWith('local-')
}

export function drop(message: api.Message): void {
  chat.messages = chat.messages.filter(({ id }) => id !== message.id)
  chat.through = undefined
}
