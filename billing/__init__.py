"""Money: prices, holds, the ledger. Knows nothing of chat; what it prices is an opaque sku."""
