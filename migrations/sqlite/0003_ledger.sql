-- The ledger. The same tables as in ../postgres, column by column.
--
-- Days are texts like 2026-01-31, in UTC; ids are version 7 UUIDs as text, so their order is that of
-- time. Money is in billionths of the currency's unit.

-- The processes that may hold open entries. One whose beat stands still is gone.
CREATE TABLE ledger_holders (
    id   TEXT    NOT NULL PRIMARY KEY,
    beat INTEGER NOT NULL
) STRICT;

-- One row for each call that was reserved. It belongs to the day on which that was.
CREATE TABLE ledger_entries (
    id                TEXT    NOT NULL PRIMARY KEY,
    holder            TEXT    NOT NULL,
    tenant            TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    currency          TEXT    NOT NULL CHECK (currency IN ('CNY', 'USD')),
    day               TEXT    NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN ('open', 'settled', 'released', 'unverified')),
    bound_image       INTEGER NOT NULL CHECK (bound_image >= 0),
    bound_text        INTEGER NOT NULL CHECK (bound_text >= 0),
    bound_output      INTEGER NOT NULL CHECK (bound_output >= 0),
    bound_cost_nanos  INTEGER NOT NULL CHECK (bound_cost_nanos >= 0),
    -- What it was settled at: the bill, or the bound where the bill is unknown.
    billed_image      INTEGER NOT NULL CHECK (billed_image >= 0),
    billed_text       INTEGER NOT NULL CHECK (billed_text >= 0),
    billed_output     INTEGER NOT NULL CHECK (billed_output >= 0),
    billed_cost_nanos INTEGER NOT NULL CHECK (billed_cost_nanos >= 0),
    -- The upstream's own id of the answer.
    request_id        TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_entries_open ON ledger_entries (holder) WHERE state = 'open';

-- What a tenant was granted in a window, and what became of it. Nothing is ever lost: see the check.
CREATE TABLE ledger_accounts (
    tenant    TEXT    NOT NULL,
    period    TEXT    NOT NULL CHECK (period IN ('day', 'month')),
    starts_on TEXT    NOT NULL,
    unit      TEXT    NOT NULL CHECK (unit IN ('tokens', 'CNY', 'USD')),
    granted   INTEGER NOT NULL CHECK (granted >= 0),
    settled   INTEGER NOT NULL CHECK (settled >= 0),
    released  INTEGER NOT NULL CHECK (released >= 0),
    excess    INTEGER NOT NULL CHECK (excess >= 0),
    reserved  INTEGER NOT NULL CHECK (reserved >= 0),
    PRIMARY KEY (tenant, period, starts_on, unit),
    CHECK (granted - settled - reserved = released - excess)
) STRICT, WITHOUT ROWID;

-- What was spent, added up as it is settled, so that a report need not read every call. Without checks
-- of single numbers, since a bill that comes late is added as the difference to the bound.
CREATE TABLE ledger_usage (
    day               TEXT    NOT NULL,
    tenant            TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    currency          TEXT    NOT NULL CHECK (currency IN ('CNY', 'USD')),
    calls             INTEGER NOT NULL,
    unverified_calls  INTEGER NOT NULL,
    image_tokens      INTEGER NOT NULL,
    text_tokens       INTEGER NOT NULL,
    output_tokens     INTEGER NOT NULL,
    unverified_tokens INTEGER NOT NULL,
    cost_nanos        INTEGER NOT NULL,
    PRIMARY KEY (day, tenant, model, currency)
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_usage_by_tenant ON ledger_usage (tenant, day);
