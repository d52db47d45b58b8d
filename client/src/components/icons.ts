/** Lucide's icons (ISC), as masks: a mini-program has no inline SVG, and a mask takes the text's colour. */

import arrowUp from 'lucide-static/icons/arrow-up.svg?raw'
import bell from 'lucide-static/icons/bell.svg?raw'
import bot from 'lucide-static/icons/bot.svg?raw'
import brain from 'lucide-static/icons/brain.svg?raw'
import check from 'lucide-static/icons/check.svg?raw'
import chevronDown from 'lucide-static/icons/chevron-down.svg?raw'
import chevronLeft from 'lucide-static/icons/chevron-left.svg?raw'
import chevronRight from 'lucide-static/icons/chevron-right.svg?raw'
import copy from 'lucide-static/icons/copy.svg?raw'
import download from 'lucide-static/icons/download.svg?raw'
import ellipsis from 'lucide-static/icons/ellipsis.svg?raw'
import fileText from 'lucide-static/icons/file-text.svg?raw'
import flag from 'lucide-static/icons/flag.svg?raw'
import gift from 'lucide-static/icons/gift.svg?raw'
import info from 'lucide-static/icons/info.svg?raw'
import logOut from 'lucide-static/icons/log-out.svg?raw'
import lock from 'lucide-static/icons/lock.svg?raw'
import monitor from 'lucide-static/icons/monitor.svg?raw'
import smartphone from 'lucide-static/icons/smartphone.svg?raw'
import unlink from 'lucide-static/icons/unlink.svg?raw'
import messageCircle from 'lucide-static/icons/message-circle.svg?raw'
import image from 'lucide-static/icons/image.svg?raw'
import wrap from 'lucide-static/icons/wrap-text.svg?raw'
import globe from 'lucide-static/icons/globe.svg?raw'
import type from 'lucide-static/icons/type.svg?raw'
import shield from 'lucide-static/icons/shield-check.svg?raw'
import crown from 'lucide-static/icons/crown.svg?raw'
import clock from 'lucide-static/icons/clock.svg?raw'
import card from 'lucide-static/icons/credit-card.svg?raw'
import mail from 'lucide-static/icons/mail.svg?raw'
import menu from 'lucide-static/icons/panel-left.svg?raw'
import moon from 'lucide-static/icons/moon.svg?raw'
import paperclip from 'lucide-static/icons/paperclip.svg?raw'
import pencil from 'lucide-static/icons/pencil.svg?raw'
import pin from 'lucide-static/icons/pin.svg?raw'
import plus from 'lucide-static/icons/square-pen.svg?raw'
import receipt from 'lucide-static/icons/receipt-text.svg?raw'
import refresh from 'lucide-static/icons/refresh-cw.svg?raw'
import search from 'lucide-static/icons/search.svg?raw'
import share from 'lucide-static/icons/share-2.svg?raw'
import sparkles from 'lucide-static/icons/sparkles.svg?raw'
import stop from 'lucide-static/icons/square.svg?raw'
import sun from 'lucide-static/icons/sun.svg?raw'
import down from 'lucide-static/icons/thumbs-down.svg?raw'
import up from 'lucide-static/icons/thumbs-up.svg?raw'
import ticket from 'lucide-static/icons/ticket.svg?raw'
import trash from 'lucide-static/icons/trash-2.svg?raw'
import user from 'lucide-static/icons/user.svg?raw'
import users from 'lucide-static/icons/users.svg?raw'
import wallet from 'lucide-static/icons/wallet.svg?raw'
import x from 'lucide-static/icons/x.svg?raw'

const SVG = {
  arrowUp,
  bell,
  bot,
  brain,
  check,
  chevronDown,
  chevronLeft,
  chevronRight,
  copy,
  download,
  ellipsis,
  fileText,
  flag,
  gift,
  info,
  logOut,
  mail,
  menu,
  moon,
  paperclip,
  pencil,
  pin,
  plus,
  receipt,
  refresh,
  search,
  share,
  sparkles,
  stop: stop.replace('fill="none"', 'fill="currentColor"'),
  sun,
  down,
  up,
  ticket,
  trash,
  user,
  users,
  wallet,
  lock,
  monitor,
  smartphone,
  unlink,
  messageCircle,
  image,
  wrap,
  globe,
  type,
  shield,
  crown,
  clock,
  card,
  x,
}
export type IconName = keyof typeof SVG

const made = new Map<IconName, string>()

export function maskOf(name: IconName): string {
  let mask = made.get(name)
  if (mask === undefined) {
    const svg = SVG[name].replace(/<!--.*?-->/, '').replace(/\s+/g, ' ').replace('stroke-width="2"', 'stroke-width="1.8"')
    mask = `url("data:image/svg+xml,${encodeURIComponent(svg)}")`
    made.set(name, mask)
  }
  return mask
}
