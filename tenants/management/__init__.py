"""Management commands about tenants and their people."""
