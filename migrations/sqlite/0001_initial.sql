-- Tenants and their keys. The same tables as in ../postgres, column by column.
--
-- STRICT, because SQLite would otherwise keep a text in an integer column. Times are integer
-- milliseconds since 1970 in UTC. Names compare byte by byte, which is SQLite's own order.

CREATE TABLE tenants (
    name                TEXT    NOT NULL PRIMARY KEY,
    max_pixels          INTEGER CHECK (max_pixels > 0),
    on_exceed           TEXT    NOT NULL CHECK (on_exceed IN ('clamp', 'reject')),
    requests_per_minute INTEGER CHECK (requests_per_minute > 0),
    tokens_per_minute   INTEGER CHECK (tokens_per_minute > 0),
    concurrency         INTEGER CHECK (concurrency > 0),
    -- A JSON array of names, in the order in which they were given. Empty: all models.
    models              TEXT    NOT NULL,
    disabled            INTEGER NOT NULL CHECK (disabled IN (0, 1))
) STRICT;

CREATE TABLE api_keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant     TEXT    NOT NULL REFERENCES tenants (name),
    -- The SHA-256 of the whole key. The key itself is nowhere.
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    label      TEXT
) STRICT;

CREATE INDEX api_keys_by_tenant ON api_keys (tenant);
