/** The tenant's assistants. */

import { reactive } from 'vue'
import * as api from '@/api/chat'
import { onLeave } from './user'

export const roles = reactive({
  list: [] as api.Role[],
  async refresh(): Promise<void> {
    roles.list = await api.roles()
  },
})

onLeave(() => {
  roles.list = []
})

export async function roleOf(slug: string): Promise<api.Role | undefined> {
  if (roles.list.length === 0) await roles.refresh().catch(() => undefined)
  return roles.list.find((one) => one.slug === slug)
}
