"""Moderation: what a tenant's users may ask, and what they are shown of what a model says.

    text        folds a text to what it looks like, and back to its positions
    lists       word lists, compiled; what they hit in a text
    checkers    a remote checker's contract, and WeChat's and OpenAI's behind it
    rules       what of these a tenant has, kept in memory until somebody changes it
    question    a question, before the model is called
    window      an answer's text, held back while it may be the beginning of a hit
    guard       one turn's moderation, from the question to the end of the answer
    evidence    what was hit, for the tenant's people

docs/moderation.md says what is matched, who is told what, and what is charged.
"""
