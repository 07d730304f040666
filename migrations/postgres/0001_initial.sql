-- Tenants and their keys. The same tables as in ../sqlite, column by column.
--
-- COLLATE "C", so that names compare byte by byte, as in SQLite, whatever language the database
-- was created for. Times are integer milliseconds since 1970 in UTC.

CREATE TABLE tenants (
    name                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    max_pixels          BIGINT  CHECK (max_pixels > 0),
    on_exceed           TEXT    NOT NULL CHECK (on_exceed IN ('clamp', 'reject')),
    requests_per_minute BIGINT  CHECK (requests_per_minute > 0),
    tokens_per_minute   BIGINT  CHECK (tokens_per_minute > 0),
    concurrency         BIGINT  CHECK (concurrency > 0),
    -- A JSON array of names, in the order in which they were given. Empty: all models.
    models              TEXT    NOT NULL,
    disabled            BOOLEAN NOT NULL
);

CREATE TABLE api_keys (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     TEXT COLLATE "C" NOT NULL REFERENCES tenants (name),
    -- The SHA-256 of the whole key. The key itself is nowhere.
    hash       BYTEA  NOT NULL CHECK (octet_length(hash) = 32),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    label      TEXT
);

CREATE INDEX api_keys_by_tenant ON api_keys (tenant);
