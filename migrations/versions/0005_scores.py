"""Scores and bans on the node's own running time, and bans by the operator."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Scores stay; a ban that was in force begins anew, for how much of it is over was only ever known by the clock."""
    scores = sa.table("scores", *(sa.column(name) for name in ("peer", "value", "updated", "banned_until")))
    old = op.get_bind().execute(sa.select(scores)).all()
    op.drop_table("score_ledger")
    op.drop_table("scores")
    scores = op.create_table(
        "scores",
        sa.Column("peer", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("ran", sa.BigInteger(), nullable=False),
        sa.Column("barred_until", sa.BigInteger(), nullable=True),
        sa.Column("banned", sa.Boolean(), nullable=False),
        sa.Column("shut_outs", sa.Integer(), nullable=False),
        sa.Column("bans", sa.Integer(), nullable=False),
        sa.Column("repeats_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("peer", name=op.f("pk_scores")),
    )
    op.create_index(op.f("ix_scores_updated"), "scores", ["updated"], unique=False)
    ledger = op.create_table(
        "score_ledger",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("peer", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ran", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.Float(precision=53), nullable=False),
        sa.Column("total", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("barred_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["peer"], ["scores.peer"], name=op.f("fk_score_ledger_peer"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_score_ledger")),
    )
    op.create_index(op.f("ix_score_ledger_peer"), "score_ledger", ["peer"], unique=False)
    op.create_table(
        "bans",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("made", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_bans")),
    )
    op.create_table(
        "running_time",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("ran", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.Text(), nullable=False),
        sa.Column("since_boot", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_running_time")),
    )
    if not old:
        return
    barred = {row.peer: max(0, (row.banned_until or 0) - row.updated) for row in old}
    op.bulk_insert(
        scores,
        [
            {
                "peer": row.peer,
                "value": row.value,
                "updated": row.updated,
                "ran": 0,
                "barred_until": barred[row.peer] or None,
                "banned": barred[row.peer] > 600_000,
                "shut_outs": 0,
                "bans": 0,
                "repeats_until": 0,
            }
            for row in old
        ],
    )
    op.bulk_insert(
        ledger,
        [
            {
                "peer": row.peer,
                "at": row.updated,
                "ran": 0,
                "change": row.value,
                "total": row.value,
                "reason": "BEFORE_UPGRADE",
                "barred_ms": barred[row.peer],
            }
            for row in old
        ],
    )
