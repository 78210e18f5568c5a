"""First schema: peers, scores, repositories, objects, and the state of the DHT."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dht_contacts",
        sa.Column("peer", sa.LargeBinary(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("peer", name=op.f("pk_dht_contacts")),
    )
    op.create_table(
        "peers",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peers")),
    )
    op.create_index(op.f("ix_peers_last_seen"), "peers", ["last_seen"], unique=False)
    op.create_table(
        "provider_records",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("publisher", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("encoded", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", "publisher", name=op.f("pk_provider_records")),
    )
    op.create_index("ix_provider_records_expires", "provider_records", ["expires"], unique=False)
    op.create_table(
        "repositories",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("identity_hash", sa.LargeBinary(), nullable=False),
        sa.Column("head", sa.Text(), nullable=True),
        sa.Column("seeding", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("projected", sa.Boolean(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_repositories")),
        sa.UniqueConstraint("id", name=op.f("uq_repositories_id")),
    )
    op.create_index(op.f("ix_repositories_projected"), "repositories", ["projected"], unique=False)
    op.create_table(
        "scores",
        sa.Column("peer", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("banned_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("peer", name=op.f("pk_scores")),
    )
    op.create_index(op.f("ix_scores_updated"), "scores", ["updated"], unique=False)
    op.create_table(
        "addresses",
        sa.Column("peer", sa.LargeBinary(), nullable=False),
        sa.Column("ip", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("transport", sa.Text(), nullable=False),
        sa.Column("last_good", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["peer"], ["peers.id"], name=op.f("fk_addresses_peer"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("peer", "ip", "port", "transport", name=op.f("pk_addresses")),
    )
    op.create_index(op.f("ix_addresses_last_good"), "addresses", ["last_good"], unique=False)
    op.create_table(
        "canonical_refs",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("oid", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.id"], name=op.f("fk_canonical_refs_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", "ref", name=op.f("pk_canonical_refs")),
    )
    op.create_table(
        "identity_documents",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("encoded", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository"],
            ["repositories.id"],
            name=op.f("fk_identity_documents_repository"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository", "epoch", name=op.f("pk_identity_documents")),
    )
    op.create_table(
        "kept_headers",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("author", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.id"], name=op.f("fk_kept_headers_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", "author", "seq", name=op.f("pk_kept_headers")),
    )
    op.create_table(
        "objects",
        sa.Column("repository", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("type", sa.SmallInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("type BETWEEN 1 AND 4", name=op.f("ck_objects_type")),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.number"], name=op.f("fk_objects_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", "id", name=op.f("pk_objects")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "listed_packs",
        sa.Column("repository", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("pack", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.number"], name=op.f("fk_listed_packs_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", "pack", name=op.f("pk_listed_packs")),
    )
    op.create_table(
        "score_ledger",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("peer", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["peer"], ["scores.peer"], name=op.f("fk_score_ledger_peer"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_score_ledger")),
    )
    op.create_index(op.f("ix_score_ledger_peer"), "score_ledger", ["peer"], unique=False)
    op.create_table(
        "signed_refs",
        sa.Column("repository", sa.LargeBinary(), nullable=False),
        sa.Column("author", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository"], ["repositories.id"], name=op.f("fk_signed_refs_repository"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository", "author", name=op.f("pk_signed_refs")),
    )
