/** Whose service this is. A page has it from its shell; a mini-program asks, and shows what it knew meanwhile. */

import { computed, reactive } from 'vue'
import { type Front, type Model, front } from '@/api/chat'
import { embedded } from '@/transport/platform'
import { recall, remember } from './storage'

const UNKNOWN: Front = {
  title: '',
  slogan: '',
  logo_url: '',
  primary_color: '#0f766e',
  welcome: '',
  suggestions: [],
  label: '',
  models: [],
  attachments: { per_message: 4, file_bytes: 8 * 1024 * 1024 },
}

export const brand = reactive<{ front: Front }>({ front: known() })

/** The model that the next question goes to; empty for the tenant's default. */
export const choice = reactive({ model: recall('model') })

export const model = computed<Model | undefined>(
  () =>
    brand.front.models.find(({ slug }) => slug === choice.model) ??
    brand.front.models.find((one) => one.is_default) ??
    brand.front.models[0],
)

export function chooseModel(slug: string): void {
  choice.model = slug
  remember('model', slug)
}

export function modelName(slug: string): string {
  return brand.front.models.find((one) => one.slug === slug)?.name ?? slug
}

/** Asks anew: what is offered may have changed since the page was made, and the language with it. */
export async function refreshBrand(): Promise<void> {
  brand.front = { ...UNKNOWN, ...(await front()) }
  remember('front', JSON.stringify(brand.front))
}

function known(): Front {
  try {
    return { ...UNKNOWN, ...(JSON.parse(embedded('banyan-front') ?? recall('front')) as Partial<Front>) }
  } catch {
    return UNKNOWN
  }
}
