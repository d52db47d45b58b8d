/** Orders that were made on this device, with what their payment needs; the server does not tell that twice. */

import type { NewOrder } from '@/api/billing'

export const openOrders = new Map<string, NewOrder>()
