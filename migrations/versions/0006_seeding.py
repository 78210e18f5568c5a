"""Why repositories are seeded, when they are to be removed, who is followed, and what is blocked."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is seeded stays so, by an explicit wish; what was unseeded stays on the disk."""
    op.create_table(
        "seeding",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("remove_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("repository", name=op.f("pk_seeding")),
    )
    op.create_table(
        "followed_authors",
        sa.Column("author", sa.LargeBinary(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("author", name=op.f("pk_followed_authors")),
    )
    op.create_table(
        "blocks",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name=op.f("pk_blocks")),
    )
