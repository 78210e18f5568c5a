"""A real database, as for the tests of the store."""

from tests.unit.store.conftest import database, where

__all__ = ["database", "where"]
