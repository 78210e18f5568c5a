"""Alembic's entry: runs the revisions on the connection that the node hands over, or on ``-x url=…``.

Logging is left as it is: the node has its own.
"""

from alembic import context
from sqlalchemy import Connection

from guts.store import dialect, lease
from guts.store.schema import metadata


def run(connection: Connection) -> None:
    """Run the wanted revisions in the transaction that ``connection`` is in."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        include_name=lambda name, kind, _parents: (kind, name) != ("table", lease.TABLE),
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("SQL scripts are not made: revisions run on a database")
given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    where = context.get_x_argument(as_dictionary=True).get("url")
    if not isinstance(where, str):
        raise SystemExit("name the database: alembic -x url=sqlite:////path/to/guts.db …")
    engine = dialect.create_writer(dialect.parse_url(where))
    with engine.begin() as connection:
        run(connection)
    engine.dispose()
