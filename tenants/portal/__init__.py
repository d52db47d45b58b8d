"""The resellers' portal, on the platform's hosts: who may enter, how it looks. Money is shown by billing/portal."""
