"""What all families of tests may ask for."""

from tests.support.postgres import cutter, postgres_database, postgres_server

__all__ = ["cutter", "postgres_database", "postgres_server"]
