-- What becomes of a tenant's call whose bill is unknown. The same column as in ../postgres.

ALTER TABLE tenants ADD COLUMN unknown_bill TEXT NOT NULL DEFAULT 'repeat' CHECK (unknown_bill IN ('repeat', 'fail'));
