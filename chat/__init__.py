"""One turn of conversation, from the question to the settled answer."""
