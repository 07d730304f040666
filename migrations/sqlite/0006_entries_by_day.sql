-- Entries by day and tenant, as an audit and reports of single calls ask for them. The same index as in
-- ../postgres. Days come first: they are asked for as a range, and new entries go to the end of the index.

CREATE INDEX ledger_entries_by_day ON ledger_entries (day, tenant);
