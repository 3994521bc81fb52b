"""Whom we have met. What is remembered is pure; where it is kept is SQLite.

pins        pure: of one destination; `comparison` with what is seen there, `history` told to people
looks       pure: how a server looked when a session with it went well
sources     pure: of clients, and of the identities of sending gateways
database    the file: opened, owned, mended; `schema` its tables, and the steps from older ones
store       pins and failed paths; the other tables have files of their own (`*_store`)

Counterpart: `policy`, which says what follows from it.
"""
