"""Table definitions. Times are seconds since the epoch, sizes are bytes."""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("tenant", String(200), nullable=False),
    # Of the whole key. Keys are long and random, so nothing slower than SHA-256 is needed to keep them secret.
    Column("digest", String(64), nullable=False, unique=True),
    Column("hint", String(32), nullable=False),  # its first letters, to tell keys apart in lists
    Column("scopes", String(200), nullable=False),  # separated by spaces
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("concurrency", Integer),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    # Principles of the charter that are set aside for it, separated by spaces.
    Column("waived", String(1000), nullable=False, server_default=""),
    # A name may be used again once its key is revoked.
    Index(
        "uq_keys_name",
        "name",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
        postgresql_where=text("revoked_at IS NULL"),
    ),
)

# What a key may still use of a limit; it fills up again with time.
allowances = Table(
    "allowances",
    metadata,
    Column("key_id", String(64), ForeignKey("keys.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("level", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

# One for each request that runs under a key with a limit on how many may. A server that died renews none.
leases = Table(
    "leases",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(64), ForeignKey("keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("expires_at", Double, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("tenant", String(200), nullable=False),
    Column("key_id", String(64)),  # no foreign key: records outlive keys
    Column("kind", String(16), nullable=False),
    Column("model", String(200), nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("cache_read_tokens", Integer, nullable=False),
    Column("cache_5m_tokens", Integer, nullable=False),
    Column("cache_1h_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("thinking_tokens", Integer, nullable=False),
    Column("stop_reason", String(64)),
    Column("error", String(64)),
    Column("verdict", Text),  # the guard's, as JSON
    Column("first_token_seconds", Double),
    Column("seconds", Double, nullable=False),
)

# What was said, if an operator wants it kept.
contents = Table(
    "contents",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("request", Text, nullable=False),
    Column("response", Text),
    Column("expires_at", Double, nullable=False, index=True),
)

# Names the folder of this database's files. So a server on another database, with the same data folder, can never
# take them for orphaned files.
library = Table("library", metadata, Column("folder", String(64), primary_key=True))

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("key_id", String(64)),
    Column("filename", String(255), nullable=False),
    Column("mime_type", String(200), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # SHA-256 of the content, which names it on disk. None: it has expired, and its content is gone.
    Column("blob", String(64), index=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, index=True),
    Index("ix_files_tenant_created_at", "tenant", "created_at", "id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("key_id", String(64)),
    Column("status", String(16), nullable=False, index=True),  # receiving, in_progress, canceling, ended, deleted
    Column("total", Integer, nullable=False),
    # How many items ended in which state; all 0 until the batch has ended.
    Column("succeeded", Integer, nullable=False),
    Column("errored", Integer, nullable=False),
    Column("canceled", Integer, nullable=False),
    Column("expired", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),  # while it is received: when it counts as given up
    Column("ended_at", Double),
    Column("cancel_initiated_at", Double),
    Column("archived_at", Double),
    Index("ix_batches_tenant_created_at", "tenant", "created_at"),
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", String(64), ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("custom_id", String(64), nullable=False),
    Column("params", Text, nullable=False),  # the request as JSON
    Column("state", String(16), nullable=False),  # waiting, running, succeeded, errored, canceled, expired
    Column("result", Text),  # as a line of the results has it; None says no more than the state
    Column("owner", String(64)),  # the server that runs it
    Column("lease_until", Double),
    Column("lost_leases", Integer, nullable=False, server_default="0"),  # how often a server that ran it died
    Index("ix_batch_items_state", "state", "batch_id", "number"),
)
