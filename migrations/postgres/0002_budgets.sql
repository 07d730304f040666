-- Budgets of tenants, and the most that a model may write for one. The same columns as in ../sqlite.
--
-- Costs are billionths of a currency unit. A budget of money holds for each currency by itself.

ALTER TABLE tenants ADD COLUMN max_tokens         BIGINT CHECK (max_tokens > 0);
ALTER TABLE tenants ADD COLUMN daily_tokens       BIGINT CHECK (daily_tokens > 0);
ALTER TABLE tenants ADD COLUMN monthly_tokens     BIGINT CHECK (monthly_tokens > 0);
ALTER TABLE tenants ADD COLUMN daily_cost_nanos   BIGINT CHECK (daily_cost_nanos > 0);
ALTER TABLE tenants ADD COLUMN monthly_cost_nanos BIGINT CHECK (monthly_cost_nanos > 0);
