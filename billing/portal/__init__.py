"""The pages of the resellers' portal that show money."""
