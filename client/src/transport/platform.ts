/** What differs between the page and the mini-program. The only file beside its neighbours where `#ifdef` stands. */

// #ifdef MP-WEIXIN
import * as kit from '@/markdown/kit'
// #endif
import type { Language } from '@/markdown/languages'
import type { Colour } from '@/markdown/painter'
import type { Carrier, Where } from './carrier'
import { FetchCarrier } from './fetch'
import { SocketCarrier, type SocketPort } from './socket'
import { WeChatCarrier, type WxRequest } from './wechat'

/** Whether this is the page; constant in each build, so that the other's code is left out. */
export const IS_PAGE: boolean = process.env.UNI_PLATFORM === 'h5'

interface Ext {
  server?: string
  appid?: string
}

/** Returns where the server is and which app asks: the page's own host, or what ext.json says. */
export function home(): { server: string; appId: string } {
  let found = { server: '', appId: '' }
  // #ifdef MP-WEIXIN
  const ext = (wx.getExtConfigSync?.() ?? {}) as Ext
  const account = wx.getAccountInfoSync?.() as { miniProgram?: { appId?: string } } | undefined
  found = { server: ext.server ?? __BANYAN_SERVER__, appId: ext.appid ?? account?.miniProgram?.appId ?? '' }
  // #endif
  return found
}

/** Returns the ways of carrying an answer here, the best first. */
export function ways(where: () => Where): Carrier[] {
  const found: Carrier[] = []
  // #ifdef H5
  if (FetchCarrier.isSupported()) found.push(new FetchCarrier(where))
  found.push(new SocketCarrier(pageSocket, where))
  // #endif
  // #ifdef MP-WEIXIN
  const runtime = wx as unknown as WxRequest
  found.push(new WeChatCarrier(runtime, where))
  found.push(new SocketCarrier(wechatSocket, where))
  found.push(new WeChatCarrier(runtime, where, true))
  // #endif
  return found
}

// #ifdef H5
function pageSocket(url: string): SocketPort {
  const socket = new WebSocket(url)
  return {
    onOpen: (then) => socket.addEventListener('open', then),
    onText: (take) => socket.addEventListener('message', (event) => take(String(event.data))),
    onClose: (then) => socket.addEventListener('close', then),
    send: (text) => socket.send(text),
    close: () => socket.close(),
  }
}
// #endif

// #ifdef MP-WEIXIN
function wechatSocket(url: string): SocketPort {
  const socket = wx.connectSocket({ url, fail: () => undefined })
  return {
    onOpen: (then) => socket.onOpen(then),
    onText: (take) => socket.onMessage((message: { data: string | ArrayBuffer }) => take(String(message.data))),
    onClose: (then) => {
      socket.onClose(then)
      socket.onError(then)
    },
    send: (text) => socket.send({ data: text }),
    close: () => socket.close({ fail: () => undefined }),
  }
}
// #endif

/** Calls back whenever a connection that waits should try again: in front again, or on a network again. */
export function onWake(then: () => void): void {
  // #ifdef H5
  window.addEventListener('online', then)
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) then()
  })
  // #endif
  // #ifdef MP-WEIXIN
  wx.onAppShow(then)
  wx.onNetworkStatusChange((status: { isConnected: boolean }) => {
    if (status.isConnected) then()
  })
  // #endif
}

/** Returns a `wx.login` code; undefined on a page. */
export function wechatCode(): Promise<string | undefined> {
  return new Promise((resolve) => {
    // #ifdef MP-WEIXIN
    wx.login({ success: (result: { code: string }) => resolve(result.code), fail: () => resolve(undefined) })
    // #endif
    // #ifdef H5
    resolve(undefined)
    // #endif
  })
}

/** Returns the word that WeChat's consent page sent the browser back with (`done`, or what was wrong), once; "" without one. */
export function takeWeChatWord(): string {
  let word = ''
  // #ifdef H5
  word = /[?&]wechat=(\w+)/.exec(location.search)?.[1] ?? ''
  if (word !== '') history.replaceState(history.state, '', location.pathname + location.hash)
  // #endif
  return word
}

/** What the shell put into the page (templates/client/shell.html); undefined in a mini-program, which asks for it. */
export function embedded(id: string): string | undefined {
  const found: string[] = []
  // #ifdef H5
  found.push(document.getElementById(id)?.textContent ?? '')
  // #endif
  return found[0] || undefined
}

/** uni-app's fields on a page keep their names to themselves: this gives them to the elements that are focused. */
export function nameFields(): void {
  // #ifdef H5
  let isDue = false
  const name = (): void => {
    isDue = false
    document.querySelectorAll('uni-input[aria-label], uni-textarea[aria-label]').forEach((field) => {
      const label = field.getAttribute('aria-label') ?? ''
      const inner = field.querySelector('input, textarea')
      if (inner !== null && inner.getAttribute('aria-label') !== label) inner.setAttribute('aria-label', label)
    })
  }
  new MutationObserver(() => {
    if (isDue) return
    isDue = true
    requestAnimationFrame(name)
  }).observe(document.body, { childList: true, subtree: true })
  // #endif
}

/** Tells the page around the app: the theme for the browser's own bars and what lies behind the app, and the language. */
export function dress(look: { dark: boolean; background: string; language: string; title: string }): void {
  // #ifdef H5
  const root = document.documentElement
  root.classList.toggle('dark', look.dark)
  root.lang = look.language === 'en' ? 'en' : 'zh-CN'
  document.querySelectorAll('meta[name="theme-color"]').forEach((meta) => meta.setAttribute('content', look.background))
  if (look.title !== '') document.title = look.title
  // #endif
  // #ifdef MP-WEIXIN
  wx.setBackgroundColor?.({ backgroundColor: look.background, fail: () => undefined })
  wx.setNavigationBarColor?.({
    frontColor: look.dark ? '#ffffff' : '#000000',
    backgroundColor: look.background,
    fail: () => undefined,
  })
  // #endif
}

/** Opens an address of somebody else: a payment provider's page, a link in an answer. A mini-program copies it. */
export function openAddress(url: string, sameWindow = false): void {
  // #ifdef H5
  if (sameWindow) location.assign(url)
  else window.open(url, '_blank', 'noopener,noreferrer')
  // #endif
  // #ifdef MP-WEIXIN
  uni.setClipboardData({ data: url })
  // #endif
}

/** Saves a text as a file; a mini-program, which has no folder for it, copies it. */
export function saveFile(name: string, text: string, type: string): void {
  // #ifdef H5
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([text], { type }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
  // #endif
  // #ifdef MP-WEIXIN
  uni.setClipboardData({ data: text })
  // #endif
}

/**
 * Draws a picture of so many dots and returns its address: a PNG in a data URL, or a temporary file. `paint` is given the
 * pictures that are drawn in it, undefined where there is none or its host does not let it be. A mini-program draws on its page's
 * `<canvas type="2d" id="drawing">`.
 */
export async function drawPicture(
  size: { width: number; height: number },
  pictures: readonly string[],
  paint: (context: CanvasRenderingContext2D, ...pictures: (CanvasImageSource | undefined)[]) => void,
  page: object | null | undefined,
): Promise<string> {
  let address = ''
  // #ifdef H5
  const drawing = Object.assign(document.createElement('canvas'), size)
  const context = drawing.getContext('2d')
  if (context === null) return ''
  paint(context, ...(await Promise.all(pictures.map((one) => loaded(Object.assign(new Image(), { crossOrigin: 'anonymous' }), one)))))
  address = drawing.toDataURL('image/png')
  // #endif
  // #ifdef MP-WEIXIN
  // The sheet that the canvas stands in is made a little after it is opened.
  let node: WxCanvas | undefined
  for (let tries = 0; node === undefined && tries < 10; tries += 1) {
    if (tries > 0) await new Promise((resolve) => setTimeout(resolve, 100))
    node = await findCanvas(page)
  }
  if (node === undefined) return ''
  Object.assign(node, size)
  const canvas = node
  paint(canvas.getContext('2d'), ...(await Promise.all(pictures.map((one) => loaded(canvas.createImage(), one)))))
  address = await new Promise<string>((resolve) => {
    const then = { success: ({ tempFilePath }: { tempFilePath: string }) => resolve(tempFilePath), fail: () => resolve('') }
    wx.canvasToTempFilePath({ canvas, fileType: 'png', ...then })
  })
  // #endif
  void page
  return address
}

// #ifdef MP-WEIXIN
function findCanvas(page: object | null | undefined): Promise<WxCanvas | undefined> {
  return new Promise((resolve) => {
    const query = uni.createSelectorQuery()
    const within = page ? query.in(page) : query
    const take = (found: unknown): void => resolve((found as { node?: WxCanvas } | null)?.node)
    within.select('#drawing').fields({ node: true } as UniApp.NodeField, take).exec()
  })
}
// #endif

interface WxCanvas {
  width: number
  height: number
  getContext(kind: '2d'): CanvasRenderingContext2D
  createImage(): HTMLImageElement
}

function loaded(picture: HTMLImageElement, url: string): Promise<CanvasImageSource | undefined> {
  if (url === '') return Promise.resolve(undefined)
  return new Promise((resolve) => {
    const giveUp = setTimeout(() => resolve(undefined), 4000)
    const end = (found: CanvasImageSource | undefined) => (): void => {
      clearTimeout(giveUp)
      resolve(found)
    }
    picture.onload = end(picture)
    picture.onerror = end(undefined)
    picture.src = url
  })
}

/** Saves a drawn picture to the device; `refused`: the person has not let the program into the album, `closed`: not now. */
export async function savePicture(address: string, name: string): Promise<'saved' | 'refused' | 'closed'> {
  let done: 'saved' | 'refused' | 'closed' = 'saved'
  // #ifdef H5
  const link = document.createElement('a')
  link.href = address
  link.download = name
  link.click()
  // #endif
  // #ifdef MP-WEIXIN
  done = await new Promise((resolve) => {
    wx.saveImageToPhotosAlbum({
      filePath: address,
      success: () => resolve('saved'),
      fail: ({ errMsg }: { errMsg: string }) => resolve(/auth|deny|denied|privacy/.test(errMsg) ? 'refused' : 'closed'),
    })
  })
  // #endif
  void address
  void name
  return done
}

/** Opens the settings in which the album can be allowed; a page has none. */
export function openPermissions(): void {
  // #ifdef MP-WEIXIN
  wx.openSetting({ fail: () => undefined })
  // #endif
}

/** Whether pictures can be handed to other programs from here. */
export function sharesPictures(): boolean {
  let shares = false
  // #ifdef H5
  try {
    shares = navigator.canShare?.({ files: [new File([''], 'x.png', { type: 'image/png' })] }) ?? false
  } catch {
    shares = false
  }
  // #endif
  // #ifdef MP-WEIXIN
  shares = typeof wx.showShareImageMenu === 'function'
  // #endif
  return shares
}

export async function sharePicture(address: string, name: string): Promise<void> {
  // #ifdef H5
  const bytes = Uint8Array.from(atob(address.slice(address.indexOf(',') + 1)), (one) => one.charCodeAt(0))
  // Whoever closes the system's sheet has changed their mind: that is no fault.
  await navigator.share({ files: [new File([bytes], name, { type: 'image/png' })] }).catch(() => undefined)
  // #endif
  // #ifdef MP-WEIXIN
  wx.showShareImageMenu({ path: address, fail: () => undefined })
  // #endif
  void name
}

interface Widgets {
  render(place: Element, options: object): unknown
}

/**
 * Shows a captcha's widget of a kind that Turnstile and hCaptcha share, from the script that the operator has set up;
 * says whether it is there. A mini-program has no place for scripts.
 */
export async function showWidget(
  widget: { provider: string; siteKey: string; script: string },
  place: string,
  dark: boolean,
  then: (token: string) => void,
): Promise<boolean> {
  let isThere = false
  // #ifdef H5
  const named = (): Widgets | undefined => (window as unknown as Record<string, Widgets | undefined>)[widget.provider]
  if (named() === undefined) {
    await new Promise<void>((resolve) => {
      const script = document.createElement('script')
      const url = new URL(widget.script)
      url.searchParams.set('render', 'explicit')
      Object.assign(script, { src: url.href, async: true, onload: () => resolve(), onerror: () => resolve() })
      document.head.append(script)
    })
  }
  const element = document.querySelector(place)
  const widgets = named()
  if (element !== null && widgets !== undefined) {
    widgets.render(element, { sitekey: widget.siteKey, theme: dark ? 'dark' : 'light', callback: then })
    isThere = true
  }
  // #endif
  void [widget, place, dark, then]
  return isThere
}

/** Copies a text; says whether it is done. */
export function copyText(text: string): Promise<boolean> {
  return new Promise((resolve) => {
    // #ifdef H5
    if (navigator.clipboard) {
      navigator.clipboard.writeText(text).then(
        () => resolve(true),
        () => resolve(false),
      )
    } else resolve(false)
    // #endif
    // #ifdef MP-WEIXIN
    uni.setClipboardData({ data: text, showToast: false, success: () => resolve(true), fail: () => resolve(false) })
    // #endif
  })
}

/** Whether a press of Enter sends: where there is a keyboard beside the screen. */
export function hasKeyboard(): boolean {
  let has = false
  // #ifdef H5
  has = window.matchMedia('(hover: hover) and (pointer: fine)').matches
  // #endif
  return has
}

/** Calls back for Enter alone in a field, where there is a keyboard: uni-app's events do not tell of Shift, or of input methods. */
export function onEnter(field: string, then: () => void): () => void {
  let stop = (): void => undefined
  // #ifdef H5
  const listen = (event: KeyboardEvent): void => {
    const isIn = event.target instanceof Element && event.target.closest(field) !== null
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || !isIn || !hasKeyboard()) return
    event.preventDefault()
    // What was typed last is told first.
    setTimeout(then, 120)
  }
  document.addEventListener('keydown', listen, true)
  stop = () => document.removeEventListener('keydown', listen, true)
  // #endif
  return stop
}

/** Calls back for Escape, where there is a keyboard. */
export function onEscape(then: () => void): () => void {
  let stop = (): void => undefined
  // #ifdef H5
  const listen = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') then()
  }
  document.addEventListener('keydown', listen)
  stop = () => document.removeEventListener('keydown', listen)
  // #endif
  return stop
}

/** Moves the keyboard's focus to an element. */
export function takeFocus(selector: string): void {
  // #ifdef H5
  document.querySelector<HTMLElement>(selector)?.focus()
  // #endif
}

/**
 * Tells how much of a page the keyboard hides, px. Safari lays the keyboard over the page and moves it up, bar and all;
 * others make the page smaller, and so does a mini-program.
 */
export function onKeyboard(then: (height: number) => void): void {
  // #ifdef H5
  const shown = window.visualViewport
  if (!shown) return
  let known = 0
  const measure = (): void => {
    // Pinching makes the visible part smaller, too.
    const hidden = shown.scale > 1.01 ? 0 : Math.round(window.innerHeight - shown.height)
    const height = hidden > 80 ? hidden : 0
    if (height > 0) window.scrollTo(0, 0)
    if (height !== known) then((known = height))
  }
  shown.addEventListener('resize', measure)
  // #endif
  void then
}

/** The room that the system's bars take at the top, and where WeChat's capsule ends, px. */
export function barRoom(): { top: number; right: number } {
  let room = { top: 0, right: 0 }
  // #ifdef MP-WEIXIN
  const info = uni.getWindowInfo()
  const capsule = uni.getMenuButtonBoundingClientRect()
  room = { top: info.statusBarHeight ?? 0, right: info.windowWidth - capsule.left }
  // #endif
  return room
}

/** A file that a person chose: on a page it is the browser's, in a mini-program it lies at its path. */
export interface Picked {
  name: string
  /** Bytes. */
  size: number
  isImage: boolean
  file?: File
  path: string
  /** A picture's address on this device, to show it by; empty for others. */
  preview: string
}

/** Endings of texts, for the browser's dialog; the server looks at what is in a file. */
const TEXTS =
  'text/*,.txt,.md,.markdown,.csv,.tsv,.json,.jsonl,.log,.xml,.yaml,.yml,.toml,.ini,.conf,.html,.css,.js,.ts,.jsx,.tsx,.vue,.py,.java,.kt,.c,.h,.cpp,.cs,.go,.rs,.rb,.php,.swift,.sh,.sql,.tex,.srt'
const IMAGES = 'image/jpeg,image/png,image/webp,image/gif'

/** Has the person choose: the browser's dialog, or in WeChat the album, the camera or a file of a chat (`words`). */
export function pickFiles(most: number, images: boolean, words: { picture: string; file: string }): Promise<Picked[]> {
  return new Promise((resolve) => {
    // #ifdef H5
    browse(most, images ? `${IMAGES},${TEXTS}` : TEXTS, resolve)
    // #endif
    // #ifdef MP-WEIXIN
    const nothing = (): void => resolve([])
    const fromChat = (): void => {
      const take = ({ tempFiles }: { tempFiles: { path: string; name: string; size: number; type: string }[] }): void =>
        resolve(
          tempFiles.map(({ path, name, size, type }) => {
            const isImage = type === 'image'
            return { name, size, isImage, path, preview: isImage ? path : '' }
          }),
        )
      wx.chooseMessageFile({ count: most, type: images ? 'all' : 'file', success: take as never, fail: nothing })
    }
    const fromAlbum = (): void =>
      void uni.chooseImage({
        count: most,
        sizeType: ['compressed'],
        success: ({ tempFiles }) =>
          resolve(
            (tempFiles as { path: string; size: number }[]).map(({ path, size }) => {
              return { name: path.slice(path.lastIndexOf('/') + 1), size, isImage: true, path, preview: path }
            }),
          ),
        fail: nothing,
      })
    if (!images) fromChat()
    else
      uni.showActionSheet({
        itemList: [words.picture, words.file],
        success: ({ tapIndex }) => (tapIndex === 0 ? fromAlbum() : fromChat()),
        fail: nothing,
      })
    // #endif
  })
}

/** Has the person choose a picture of themselves by the browser's dialog; a mini-program has WeChat's button (WeChatAvatar.vue). */
export function pickPicture(): Promise<Picked | undefined> {
  return new Promise((resolve) => {
    // #ifdef H5
    browse(1, 'image/jpeg,image/png,image/webp', ([picked]) => resolve(picked))
    // #endif
    // #ifdef MP-WEIXIN
    resolve(undefined)
    // #endif
  })
}

// #ifdef H5
function browse(most: number, accept: string, then: (files: Picked[]) => void): void {
  const input = document.createElement('input')
  Object.assign(input, { type: 'file', multiple: most > 1, accept })
  input.style.display = 'none'
  const end = (files: readonly File[]): void => {
    input.remove()
    then(files.map(pickedOf))
  }
  input.addEventListener('change', () => end([...(input.files ?? [])]))
  input.addEventListener('cancel', () => end([]))
  // Some browsers tell nothing of one that stands nowhere.
  document.body.append(input)
  input.click()
}
// #endif

/** What was picked, with a picture's address that holds: the one before may have been let go. */
export function renewed(picked: Picked): Picked {
  let again = picked
  // #ifdef H5
  if (picked.file !== undefined) {
    letGo(picked.preview)
    again = pickedOf(picked.file)
  }
  // #endif
  return again
}

// #ifdef H5
function pickedOf(file: File): Picked {
  const isImage = file.type.startsWith('image/') && file.type !== 'image/svg+xml'
  return { name: file.name, size: file.size, isImage, file, path: '', preview: isImage ? URL.createObjectURL(file) : '' }
}
// #endif

/** Tells of files that are dropped on the page or pasted into it, and while some hang over it. */
export function onFiles(take: (files: Picked[]) => void, over: (isOver: boolean) => void): () => void {
  let stop = (): void => undefined
  // #ifdef H5
  const drag = (event: DragEvent): void => {
    if (!event.dataTransfer?.types.includes('Files')) return
    event.preventDefault()
    over(true)
  }
  const leave = (event: DragEvent): void => {
    if (event.relatedTarget === null) over(false)
  }
  const drop = (event: DragEvent): void => {
    const files = [...(event.dataTransfer?.files ?? [])]
    over(false)
    if (files.length === 0) return
    event.preventDefault()
    take(files.map(pickedOf))
  }
  const paste = (event: ClipboardEvent): void => {
    const files = [...(event.clipboardData?.files ?? [])]
    if (files.length === 0) return
    event.preventDefault()
    take(files.map(pickedOf))
  }
  document.addEventListener('dragover', drag)
  document.addEventListener('dragleave', leave)
  document.addEventListener('drop', drop)
  document.addEventListener('paste', paste)
  stop = () => {
    document.removeEventListener('dragover', drag)
    document.removeEventListener('dragleave', leave)
    document.removeEventListener('drop', drop)
    document.removeEventListener('paste', paste)
  }
  // #endif
  return stop
}

/** Loads a picture that wants the token; returns an address of this device, for `letGo` in the end. */
export function loadPicture(url: string, header: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    // #ifdef H5
    fetch(url, { headers: header, cache: 'no-store' })
      .then((response) => (response.ok ? response.blob() : Promise.reject(new Error(String(response.status)))))
      .then((blob) => resolve(URL.createObjectURL(blob)), reject)
    // #endif
    // #ifdef MP-WEIXIN
    uni.downloadFile({
      url,
      header,
      success: ({ statusCode, tempFilePath }) =>
        statusCode === 200 ? resolve(tempFilePath) : reject(new Error(String(statusCode))),
      fail: () => reject(new Error('network')),
    })
    // #endif
  })
}

/** Frees what an address of this device holds. */
export function letGo(source: string): void {
  // #ifdef H5
  if (source.startsWith('blob:')) URL.revokeObjectURL(source)
  // #endif
}

/** Shows a picture in WeChat's own viewer; says whether there is one. */
export function previewPicture(source: string): boolean {
  let has = false
  // #ifdef MP-WEIXIN
  uni.previewImage({ urls: [source], current: source })
  has = true
  // #endif
  return has && source !== ''
}

export interface Asker {
  platform?: string
  version?: string
}

/** What a mini-program says of itself where things are sold; a page says nothing. A program that is not released has no version of WeChat's. */
export function asker(): Asker {
  let found: Asker = {}
  // #ifdef MP-WEIXIN
  const released = (wx.getAccountInfoSync?.() as { miniProgram?: { version?: string } } | undefined)?.miniProgram?.version
  const said = { platform: uni.getDeviceInfo().platform, version: released || uni.getAppBaseInfo().appVersion }
  found = { platform: said.platform?.slice(0, 16) || undefined, version: said.version?.slice(0, 32) || undefined }
  // #endif
  return found
}

export type Markdown = typeof import('@/markdown/kit')

/** Returns what renders Markdown. On a page it is a file of its own: a first screen without answers does not wait for it. */
export function loadMarkdown(): Promise<Markdown> {
  // #ifdef H5
  return import('@/markdown/kit')
  // #endif
  // #ifdef MP-WEIXIN
  return Promise.resolve(kit)
  // #endif
}

/** Renders formulas on a page; a mini-program shows their source, having no room for the fonts. */
export type Formulas = (tex: string, display: boolean) => string

let formulas: Promise<Formulas | undefined> | undefined

export function loadFormulas(): Promise<Formulas | undefined> {
  formulas ??= load()
  return formulas
}

async function load(): Promise<Formulas | undefined> {
  // #ifdef H5
  const { render } = await import('@/markdown/formulas')
  return render
  // #endif
  return undefined
}

/**
 * Returns what colours code of a language. A mini-program shows it plain: each word of it would be a node that is carried
 * from one thread to the other.
 */
export async function loadColours(language: Language): Promise<Colour | undefined> {
  // #ifdef H5
  try {
    const [{ colour }, { sanitize }] = await Promise.all([import('@/markdown/colours'), loadMarkdown()])
    // highlight.js escapes the code; what it made is looked at like everything else that becomes HTML.
    return (code) => sanitize(colour(code, language))
  } catch {
    // A file that did not come: the code is there, in one colour.
  }
  // #endif
  void language
  return undefined
}

/** Hands an order's arguments to WeChat's own payment; says whether the person went through with it. */
export function payInWeChat(payment: Record<string, string>): Promise<boolean> {
  return new Promise((resolve) => {
    // #ifdef MP-WEIXIN
    const then = { success: () => resolve(true), fail: () => resolve(false) }
    const runtime = wx as unknown as Record<'requestPayment' | 'requestVirtualPayment', (options: object) => void>
    // What virtual payment signs is a text; it goes on as it came.
    if (payment.signData !== undefined) runtime.requestVirtualPayment({ ...payment, ...then })
    else runtime.requestPayment({ ...payment, ...then })
    // #endif
    // #ifdef H5
    const bridge = (window as unknown as { WeixinJSBridge?: { invoke(name: string, options: object, then: (result: { err_msg: string }) => void): void } })
      .WeixinJSBridge
    if (bridge === undefined) resolve(false)
    else bridge.invoke('getBrandWCPayRequest', payment, ({ err_msg }) => resolve(err_msg.endsWith(':ok')))
    // #endif
  })
}
