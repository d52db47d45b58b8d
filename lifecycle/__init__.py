"""A tenant's life: opened, checked, suspended, moved, taken along, deleted. Above chat, below the shell."""
