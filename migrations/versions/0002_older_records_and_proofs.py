"""Older records with their entries, and proofs of equivocation."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kept_records",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("author", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.Column("base", sa.LargeBinary(), nullable=True),
        sa.Column("delta", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.id"], name=op.f("fk_kept_records_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", "author", "seq", "hash", name=op.f("pk_kept_records")),
    )
    op.execute(
        "INSERT INTO kept_records (repository, author, seq, hash, header)"
        " SELECT repository, author, seq, hash, header FROM kept_headers"
    )
    op.drop_table("kept_headers")
    op.create_table(
        "equivocations",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("author", sa.LargeBinary(), nullable=False),
        sa.Column("split", sa.BigInteger(), nullable=False),
        sa.Column("encoded", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.id"], name=op.f("fk_equivocations_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", "author", name=op.f("pk_equivocations")),
    )
