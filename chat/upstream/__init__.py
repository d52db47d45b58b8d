"""Providers of models: one contract, one streaming client, a dialect each, and the choice among them."""
