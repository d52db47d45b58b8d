"""Measures what a streamed answer costs, beside nginx, LiteLLM and Portkey: `make bench`."""
