"""Django's PostgreSQL, with a pool whose connections are looked at before they are used, mostly without asking."""
