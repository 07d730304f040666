-- Whether a tenant's PDF pages are answered from their own text. The same column as in ../sqlite.
--
-- Versions before this one name the columns that they write, so they run on. They answer from the image.

ALTER TABLE tenants ADD COLUMN pdf_text TEXT NOT NULL DEFAULT 'off' CHECK (pdf_text IN ('off', 'prefer'));

INSERT INTO schema_compatibility (version, oldest_compatible) VALUES (10, 7);
