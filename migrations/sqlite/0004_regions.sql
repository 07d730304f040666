-- The regions in which a tenant may be served. The same column as in ../postgres.

-- A JSON array of names, in the order in which they were given. Empty: all regions.
ALTER TABLE tenants ADD COLUMN regions TEXT NOT NULL DEFAULT '[]';
