-- The ledger's tables as they were, with two checks said otherwise: a list of more than two values becomes
-- a table of its own each time that a row is written, which took a third of what writing the row takes.

CREATE TABLE ledger_entries_new (
    id                TEXT    NOT NULL PRIMARY KEY,
    holder            TEXT    NOT NULL,
    tenant            TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    currency          TEXT    NOT NULL CHECK (currency IN ('CNY', 'USD')),
    day               TEXT    NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN ('open', 'settled') OR state IN ('released', 'unverified')),
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

INSERT INTO ledger_entries_new (
    id, holder, tenant, model, currency, day, state, bound_image, bound_text, bound_output, bound_cost_nanos,
    billed_image, billed_text, billed_output, billed_cost_nanos, request_id
)
SELECT
    id, holder, tenant, model, currency, day, state, bound_image, bound_text, bound_output, bound_cost_nanos,
    billed_image, billed_text, billed_output, billed_cost_nanos, request_id
FROM ledger_entries ORDER BY id;

DROP TABLE ledger_entries;
ALTER TABLE ledger_entries_new RENAME TO ledger_entries;
CREATE INDEX ledger_entries_open ON ledger_entries (holder) WHERE state = 'open';

CREATE TABLE ledger_accounts_new (
    tenant    TEXT    NOT NULL,
    period    TEXT    NOT NULL CHECK (period IN ('day', 'month')),
    starts_on TEXT    NOT NULL,
    unit      TEXT    NOT NULL CHECK (unit = 'tokens' OR unit IN ('CNY', 'USD')),
    granted   INTEGER NOT NULL CHECK (granted >= 0),
    settled   INTEGER NOT NULL CHECK (settled >= 0),
    released  INTEGER NOT NULL CHECK (released >= 0),
    excess    INTEGER NOT NULL CHECK (excess >= 0),
    reserved  INTEGER NOT NULL CHECK (reserved >= 0),
    PRIMARY KEY (tenant, period, starts_on, unit),
    CHECK (granted - settled - reserved = released - excess)
) STRICT, WITHOUT ROWID;

INSERT INTO ledger_accounts_new (
    tenant, period, starts_on, unit, granted, settled, released, excess, reserved
)
SELECT tenant, period, starts_on, unit, granted, settled, released, excess, reserved FROM ledger_accounts;

DROP TABLE ledger_accounts;
ALTER TABLE ledger_accounts_new RENAME TO ledger_accounts;
