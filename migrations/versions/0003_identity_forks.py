"""A second valid document of one epoch of an identity."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identity_forks",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("encoded", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.id"], name=op.f("fk_identity_forks_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", name=op.f("pk_identity_forks")),
    )
