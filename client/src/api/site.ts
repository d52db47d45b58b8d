import type { Asker } from '@/transport/platform'
import { get } from './client'

/** A text of the tenant's: its address, which version it is (0: the service's default), and its day. */
export interface Legal {
  url: string
  version: number
  changed_on: string
}

/** What the law and the stores want said of a service, before anybody logs in. Empty where there is nothing to say. */
export interface Site {
  company: string
  contact: string
  filed: { model_name: string; model_filing: string; algorithm_filing: string; icp_number: string }
  age_notice: string
  terms: Legal
  privacy: Legal
  purchases: { hidden: boolean; reason: '' | 'ios' | 'review' }
}

export const site = (asker: Asker): Promise<Site> => get('/api/site', { ...asker })
