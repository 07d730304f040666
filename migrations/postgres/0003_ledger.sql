-- The ledger. The same tables as in ../sqlite, column by column.
--
-- Days are texts like 2026-01-31, in UTC; ids are version 7 UUIDs, so their order is that of time.
-- Money is in billionths of the currency's unit.

-- The processes that may hold open entries. One whose beat stands still is gone.
CREATE TABLE ledger_holders (
    id   UUID   NOT NULL PRIMARY KEY,
    beat BIGINT NOT NULL
);

-- One row for each call that was reserved. It belongs to the day on which that was.
CREATE TABLE ledger_entries (
    id                UUID   NOT NULL PRIMARY KEY,
    holder            UUID   NOT NULL,
    tenant            TEXT COLLATE "C" NOT NULL,
    model             TEXT COLLATE "C" NOT NULL,
    currency          TEXT   NOT NULL CHECK (currency IN ('CNY', 'USD')),
    day               TEXT COLLATE "C" NOT NULL,
    state             TEXT   NOT NULL CHECK (state IN ('open', 'settled', 'released', 'unverified')),
    bound_image       BIGINT NOT NULL CHECK (bound_image >= 0),
    bound_text        BIGINT NOT NULL CHECK (bound_text >= 0),
    bound_output      BIGINT NOT NULL CHECK (bound_output >= 0),
    bound_cost_nanos  BIGINT NOT NULL CHECK (bound_cost_nanos >= 0),
    -- What it was settled at: the bill, or the bound where the bill is unknown.
    billed_image      BIGINT NOT NULL CHECK (billed_image >= 0),
    billed_text       BIGINT NOT NULL CHECK (billed_text >= 0),
    billed_output     BIGINT NOT NULL CHECK (billed_output >= 0),
    billed_cost_nanos BIGINT NOT NULL CHECK (billed_cost_nanos >= 0),
    -- The upstream's own id of the answer.
    request_id        TEXT
);

CREATE INDEX ledger_entries_open ON ledger_entries (holder) WHERE state = 'open';

-- What a tenant was granted in a window, and what became of it. Nothing is ever lost: see the check.
CREATE TABLE ledger_accounts (
    tenant    TEXT COLLATE "C" NOT NULL,
    period    TEXT   NOT NULL CHECK (period IN ('day', 'month')),
    starts_on TEXT COLLATE "C" NOT NULL,
    unit      TEXT   NOT NULL CHECK (unit IN ('tokens', 'CNY', 'USD')),
    granted   BIGINT NOT NULL CHECK (granted >= 0),
    settled   BIGINT NOT NULL CHECK (settled >= 0),
    released  BIGINT NOT NULL CHECK (released >= 0),
    excess    BIGINT NOT NULL CHECK (excess >= 0),
    reserved  BIGINT NOT NULL CHECK (reserved >= 0),
    PRIMARY KEY (tenant, period, starts_on, unit),
    CHECK (granted - settled - reserved = released - excess)
-- Room on each page for the next version of a row: these are the ones that change with every call.
) WITH (fillfactor = 50);

-- What was spent, added up as it is settled, so that a report need not read every call. Without checks
-- of single numbers, since a bill that comes late is added as the difference to the bound.
CREATE TABLE ledger_usage (
    day               TEXT COLLATE "C" NOT NULL,
    tenant            TEXT COLLATE "C" NOT NULL,
    model             TEXT COLLATE "C" NOT NULL,
    currency          TEXT   NOT NULL CHECK (currency IN ('CNY', 'USD')),
    calls             BIGINT NOT NULL,
    unverified_calls  BIGINT NOT NULL,
    image_tokens      BIGINT NOT NULL,
    text_tokens       BIGINT NOT NULL,
    output_tokens     BIGINT NOT NULL,
    unverified_tokens BIGINT NOT NULL,
    cost_nanos        BIGINT NOT NULL,
    PRIMARY KEY (day, tenant, model, currency)
);

CREATE INDEX ledger_usage_by_tenant ON ledger_usage (tenant, day);
