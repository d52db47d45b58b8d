"""The state machine of the ledger: a class for each feature that moves money, all of them above `Books`.

Each has a model of its own that only adds and subtracts: its rules change the product and the model alike, its
`prepare` opens what it needs, and the invariants hold the one against the other after each step. What one feature's
doing means for another goes by the hooks of `Books`, of which each class calls the next. Time never passes by the
clock: a rule moves the rows into the past. What takes many steps to get to has a rule that takes them all at once.
"""
