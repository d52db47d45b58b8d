/** Announcements of the platform and the tenant. */

import { reactive } from 'vue'
import * as api from '@/api/chat'
import { isLoggedIn, onLeave } from './user'

export const news = reactive<{ list: api.Announcement[]; unread: number }>({ list: [], unread: 0 })

onLeave(() => Object.assign(news, { list: [], unread: 0 }))

export async function refreshNews(): Promise<void> {
  if (!isLoggedIn.value) return
  news.list = await api.announcements()
  count()
}

export async function read(one: api.Announcement): Promise<void> {
  if (one.is_read) return
  one.is_read = true
  count()
  await api.readAnnouncement(one.id)
}

function count(): void {
  news.unread = news.list.filter(({ is_read }) => !is_read).length
}
