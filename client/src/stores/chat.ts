/** The conversation that is open: its messages, and the answer that is under way. */

import { computed, reactive } from 'vue'
import * as api from '@/api/chat'
import { around } from '@/api/client'
import { type Answer, newAnswer } from '@/protocol/answer'
import { NOT_LOGGED_IN, type Detour, type Reaction, detour, reactionTo } from '@/protocol/reactions'
import { type Refusal, refusalOf } from '@/protocol/events'
import type { Ask, Carrier } from '@/transport/carrier'
import { Session } from '@/transport/session'
import { onWake, ways } from '@/transport/platform'
import * as attachments from './attachments'
import { choice } from './brand'
import { history, refreshHistory } from './history'
import { t } from './look'
import { sells } from './site'
import { randomId, recall, remember } from './storage'
import { alternatives, branch } from './tree'
import { isLoggedIn, onLeave, refreshBalance, user } from './user'

/** At most one render in so many milliseconds, however fast an answer comes. */
const RENDER = 50
/** How long a stopped answer may take to say that it has stopped, ms. */
const STOPPING = 6000

export interface Live {
  question: string
  files: api.Attachment[]
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

export const chat = reactive<State>({ ...EMPTY(), draft: recall('draft.new'), detour: { at: 'nowhere' } })

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
onLeave((isOver) => {
  attachments.forget(isOver || chat.detour.at === 'login')
  startAnew()
})

export function onReaction(then: (reaction: Reaction) => void): void {
  lead = then
}

const lost = (): Refusal => refusalOf({ type: 'network' }, t('offline'))

// --- the conversation

export function startAnew(role?: api.Role): void {
  hangUp()
  Object.assign(chat, EMPTY(), { role, draft: recall('draft.new') })
  attachments.turnTo('new')
}

export async function open(id: string, through?: string): Promise<void> {
  hangUp()
  const known = history.list.find((one) => one.id === id)
  Object.assign(chat, EMPTY(), { id, title: known?.title ?? '', through, isLoading: true, draft: recall(`draft.${id}`) })
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
  if (chat.editing === '') remember(`draft.${chat.id || 'new'}`, text)
}

/** What is typed for the next question; while another is edited it waits. */
const typed = (): string => (chat.editing === '' ? chat.draft : recall(`draft.${chat.id || 'new'}`))

/** Takes the question back that a log-in or a payment came between. */
export function comeBack(): void {
  attachments.uploadWaiting()
  chat.detour = detour(chat.detour, { did: 'returned' })
  if (chat.detour.at !== 'back') return
  if (chat.detour.unsent !== '' && chat.draft === '') keepDraft(chat.detour.unsent)
  chat.detour = detour(chat.detour, { did: 'taken' })
}

// --- asking

/** Asks what is in the composer: a new question, or one in place of another. */
export function send(text = chat.draft): void {
  const question = text.trim()
  if (question === '' || isBusy.value) return
  const { editing } = chat
  if (!isLoggedIn.value) {
    refused(question, refusalOf({ code: NOT_LOGGED_IN, type: 'login_required' }), false)
    return
  }
  if (!attachments.isReady.value) return
  const files = attachments.take()
  const ids = files.map(({ id }) => id)
  if (editing === '') keepDraft('')
  else {
    // What waited before is there again; the edited question was no draft.
    stopEditing()
    const edited = chat.messages.find(({ id }) => id === editing)
    ask(question, edited?.parent_id ?? null, { edit: editing, message: question, attachments: ids }, files)
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
  chat.draft = recall(`draft.${chat.id || 'new'}`)
  attachments.turnTo(chat.id || 'new')
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
  chat.live = { question, files, parent, answer: known ?? newAnswer(), isWaiting: false, isStopping: false }
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
      remember('draft.new', '')
      remember(`draft.${chat.id}`, draft)
      chat.title = question.slice(0, 40)
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
  if (refusal !== undefined) refused(question, refusal, answer.text !== '', live.files)
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

function refused(question: string, refusal: Refusal, hasText: boolean, files: api.Attachment[] = []): void {
  const reaction = reactionTo(refusal, hasText, sells.value)
  const place = chat.id || 'new'
  const waiting = typed()
  // What was typed meanwhile stays: an old question, asked once more, does not take its place, nor its files stand beside it.
  const comesBack = reaction.takesBack && (waiting === '' || waiting.trim() === question)
  if (comesBack) attachments.putBack(files, place)
  chat.detour = detour(chat.detour, { did: 'refused', reaction, question })
  if (reaction.kind === 'show') return
  // Some pay on another page, and come back to one that begins anew.
  if (comesBack) remember(`draft.${place}`, question)
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
