-- Which versions of the program run on this schema. The same table as in ../sqlite.
--
-- A row says of one migration: programs that know the migrations up to oldest_compatible run on the schema
-- after it. A program reads the rows of migrations that it does not know (docs/adr/0020-expand-and-contract.md).
-- Every migration from this one on inserts its row.

CREATE TABLE schema_compatibility (
    version           BIGINT NOT NULL PRIMARY KEY,
    oldest_compatible BIGINT NOT NULL CHECK (oldest_compatible BETWEEN 1 AND version)
);

INSERT INTO schema_compatibility (version, oldest_compatible) VALUES (8, 7);
