"""What the two databases are told. PostgreSQL itself runs in another family of tests; here its statements are made."""

from typing import Any

import pytest
from sqlalchemy import Table
from sqlalchemy.dialects import registry
from sqlalchemy.schema import CreateTable

from guts.store import dialect, schema

POSTGRESQL = registry.load("postgresql")()
SQLITE = registry.load("sqlite")()
TABLES = schema.metadata.sorted_tables


@pytest.mark.parametrize("table", TABLES, ids=lambda table: str(table.name))
def test_postgresql_takes_every_table(table: Table[Any]) -> None:
    statement = str(CreateTable(table).compile(dialect=POSTGRESQL))
    assert "BYTEA" in statement or table in (schema.listed_packs, schema.bans, schema.running_time)
    assert "WITHOUT ROWID" not in statement


@pytest.mark.parametrize(("table", "number"), [(schema.repositories, "BIGSERIAL"), (schema.score_ledger, "BIGSERIAL")])
def test_rows_are_numbered_by_either_database(table: Table[Any], number: str) -> None:
    assert f"number {number} NOT NULL" in str(CreateTable(table).compile(dialect=POSTGRESQL))
    assert "number INTEGER NOT NULL" in str(CreateTable(table).compile(dialect=SQLITE))


def test_url_of_a_server_has_no_file() -> None:
    assert dialect.sqlite_path(dialect.parse_url("postgresql://guts@localhost/guts")) is None
    assert str(dialect.sqlite_path(dialect.parse_url("/data/guts.db"))) == "/data/guts.db"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://guts:sesame@localhost/guts?sslmode=require",
        "postgresql://guts@localhost/guts?password=sesame&sslmode=require",
        "postgresql://guts:sesame@localhost/guts?sslpassword=sesame&sslmode=require&password=sesame",
    ],
)
def test_password_of_a_url_is_not_told(text: str) -> None:
    told = dialect.told(dialect.parse_url(text))
    assert "sesame" not in told
    assert "@localhost/guts" in told
    assert told.endswith("?sslmode=require")
