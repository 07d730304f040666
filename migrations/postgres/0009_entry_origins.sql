-- With which key each call was made, when, and where. The same columns as in ../sqlite.
--
-- NULL where it is not known: in entries of versions before this one, and the endpoint of calls whose end was
-- never told. Versions before this one name the columns that they write, so they run on.

ALTER TABLE ledger_entries ADD COLUMN key_id   TEXT COLLATE "C";
-- When the call was asked for, in milliseconds since 1970 in UTC.
ALTER TABLE ledger_entries ADD COLUMN asked_at BIGINT;
-- The endpoint of the upstream at which it was made.
ALTER TABLE ledger_entries ADD COLUMN endpoint TEXT COLLATE "C";

INSERT INTO schema_compatibility (version, oldest_compatible) VALUES (9, 7);
