-- How a tenant spends fewer tokens: pixels that are chosen for each page, their audit, a second reading of answers in
-- doubt, and answers that are kept. The same columns as in ../postgres.
--
-- Shares are in millionths. Versions before this one name the columns that they write, so they run on. They choose no
-- pixels and keep no answers.

ALTER TABLE tenants ADD COLUMN auto_pixels INTEGER NOT NULL DEFAULT 0 CHECK (auto_pixels IN (0, 1));
ALTER TABLE tenants ADD COLUMN auto_audit INTEGER NOT NULL DEFAULT 0 CHECK (auto_audit BETWEEN 0 AND 1000000);
ALTER TABLE tenants ADD COLUMN auto_aim INTEGER NOT NULL DEFAULT 950000 CHECK (auto_aim BETWEEN 0 AND 1000000);
ALTER TABLE tenants ADD COLUMN escalate INTEGER NOT NULL DEFAULT 0 CHECK (escalate IN (0, 1));
ALTER TABLE tenants ADD COLUMN cache_ttl INTEGER NOT NULL DEFAULT 0 CHECK (cache_ttl >= 0);

-- What the audits of a tenant have taught: by how many thousandths the height that text keeps is raised. No foreign key,
-- since tenants of the configuration have no row in `tenants`.
CREATE TABLE auto_heights (
    tenant       TEXT NOT NULL PRIMARY KEY,
    factor_milli INTEGER NOT NULL CHECK (factor_milli BETWEEN 1000 AND 4000)
);

INSERT INTO schema_compatibility (version, oldest_compatible) VALUES (11, 7);
