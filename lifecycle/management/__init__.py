"""Commands of a tenant's life."""
