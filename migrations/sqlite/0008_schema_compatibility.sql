-- Which versions of the program run on this schema. The same table as in ../postgres.
--
-- A row says of one migration: programs that know the migrations up to oldest_compatible run on the schema
-- after it. A program reads the rows of migrations that it does not know (docs/adr/0020-expand-and-contract.md).
-- Every migration from this one on inserts its row.

CREATE TABLE schema_compatibility (
    version           INTEGER NOT NULL PRIMARY KEY,
    oldest_compatible INTEGER NOT NULL CHECK (oldest_compatible BETWEEN 1 AND version)
) STRICT;

INSERT INTO schema_compatibility (version, oldest_compatible) VALUES (8, 7);
