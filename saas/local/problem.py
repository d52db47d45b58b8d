"""The one exception of this package."""


class StartError(RuntimeError):
    """Something outside of Banyan stands in the way; the message is one sentence for the person at the terminal."""
