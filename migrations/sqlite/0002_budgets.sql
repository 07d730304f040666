-- Budgets of tenants, and the most that a model may write for one. The same columns as in ../postgres.
--
-- Costs are billionths of a currency unit. A budget of money holds for each currency by itself.

ALTER TABLE tenants ADD COLUMN max_tokens         INTEGER CHECK (max_tokens > 0);
ALTER TABLE tenants ADD COLUMN daily_tokens       INTEGER CHECK (daily_tokens > 0);
ALTER TABLE tenants ADD COLUMN monthly_tokens     INTEGER CHECK (monthly_tokens > 0);
ALTER TABLE tenants ADD COLUMN daily_cost_nanos   INTEGER CHECK (daily_cost_nanos > 0);
ALTER TABLE tenants ADD COLUMN monthly_cost_nanos INTEGER CHECK (monthly_cost_nanos > 0);
