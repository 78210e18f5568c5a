"""The database's schema, step by step (alembic); the wheel carries it as ``guts._migrations``.

A revision is a number of four digits. There is no way down: the copy that a node makes before it migrates is
the way back. It is never edited once released; a test runs all of them on an empty
database and compares the outcome with ``guts.store.schema``.
"""
