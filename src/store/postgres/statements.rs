//! The statements whose text differs from SQLite's.

use crate::store::statement::Statements;

pub(in crate::store) const STATEMENTS: Statements = Statements {
    register_instance: "INSERT INTO ledger_holders (id, beat) VALUES ($1::uuid, 0)",
    raise_heartbeat: "UPDATE ledger_holders SET beat = beat + 1 WHERE id = $1::uuid",
    heartbeats: "SELECT id::text, beat FROM ledger_holders",
    expire_instance: "DELETE FROM ledger_holders WHERE id = $1::uuid",
    orphans: "SELECT id::text FROM ledger_entries
        WHERE state = 'open' AND holder NOT IN (SELECT id FROM ledger_holders) AND id > $1::uuid
        ORDER BY ledger_entries.id LIMIT $2",
    accounts: "SELECT tenant, period, starts_on, unit, granted, settled, released, excess, reserved
        FROM ledger_accounts
        WHERE tenant = ANY(ARRAY(SELECT json_array_elements_text($1::json)))
            AND period IN ('day', 'month') AND starts_on IN ($2, $3)
            AND (period = 'day' AND starts_on = $2 OR period = 'month' AND starts_on = $3)
        ORDER BY tenant, period, unit",
    prune: "DELETE FROM ledger_entries WHERE id IN (
        SELECT id FROM ledger_entries
        WHERE id < $1::uuid AND day < $2 AND state <> 'open' ORDER BY id LIMIT $3)",
    differing_accounts: DIFFERING_ACCOUNTS,
    differing_usage: DIFFERING_USAGE,
    usage_by,
};

/// Sums are numerics, as for [`DIFFERING_ACCOUNTS`].
fn usage_by(named: &str, hour: &str) -> String {
    format!(
        "SELECT CAST({named} AS TEXT) COLLATE \"C\" AS named,
            CAST({hour} AS BIGINT) AS hour, tenant, currency,
            count(*)::text AS calls,
            (count(*) FILTER (WHERE state = 'unverified'))::text AS unverified_calls,
            sum(billed_image)::text AS image_tokens, sum(billed_text)::text AS text_tokens,
            sum(billed_output)::text AS output_tokens,
            coalesce(sum(billed_image::numeric + billed_text + billed_output)
                FILTER (WHERE state = 'unverified'), 0)::text AS unverified_tokens,
            sum(billed_cost_nanos)::text AS cost_nanos
         FROM ledger_entries
         WHERE day BETWEEN $1 AND $2 AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
            AND state IN ('settled', 'unverified')
         GROUP BY 1, 2, tenant, currency
         ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, tenant, currency"
    )
}

/// The accounts from a day on whose counts differ from their entries. The sums of entries are numerics, which hold more
/// than any column, and are read as text.
const DIFFERING_ACCOUNTS: &str = "WITH amounts AS (
        SELECT tenant, day, state, 'tokens' AS unit,
            bound_image::numeric + bound_text + bound_output AS bound,
            billed_image::numeric + billed_text + billed_output AS billed
        FROM ledger_entries WHERE day >= $1
        UNION ALL
        SELECT tenant, day, state, currency, bound_cost_nanos, billed_cost_nanos
        FROM ledger_entries WHERE day >= $1
     ), windows AS (
        SELECT tenant, 'day' AS period, day AS starts_on, unit, state, bound, billed
        FROM amounts
        UNION ALL
        SELECT tenant, 'month', substr(day, 1, 8) || '01', unit, state, bound, billed
        FROM amounts WHERE substr(day, 1, 8) || '01' >= $1
     ), recounts AS (
        SELECT tenant, period, starts_on, unit,
            sum(bound) AS granted,
            sum(billed) AS settled,
            sum(CASE state WHEN 'open' THEN bound ELSE 0 END) AS reserved
        FROM windows GROUP BY tenant, period, starts_on, unit
     )
     SELECT tenant, period, starts_on, unit,
        coalesce(account.granted, 0) AS granted,
        coalesce(account.settled, 0) AS settled,
        coalesce(account.reserved, 0) AS reserved,
        coalesce(recount.granted, 0)::text AS recounted_granted,
        coalesce(recount.settled, 0)::text AS recounted_settled,
        coalesce(recount.reserved, 0)::text AS recounted_reserved
     FROM (SELECT * FROM ledger_accounts WHERE starts_on >= $1) AS account
     FULL JOIN recounts AS recount USING (tenant, period, starts_on, unit)
     WHERE coalesce(account.granted, 0) <> coalesce(recount.granted, 0)
        OR coalesce(account.settled, 0) <> coalesce(recount.settled, 0)
        OR coalesce(account.reserved, 0) <> coalesce(recount.reserved, 0)
     ORDER BY tenant, period, starts_on, unit";

/// The daily sums from a day on that differ from their entries.
const DIFFERING_USAGE: &str = "WITH recounts AS (
        SELECT day, tenant, model, currency, count(*) AS calls,
            sum(CASE state WHEN 'unverified' THEN 1 ELSE 0 END) AS unverified_calls,
            sum(billed_image) AS image_tokens, sum(billed_text) AS text_tokens,
            sum(billed_output) AS output_tokens,
            sum(CASE state WHEN 'unverified'
                THEN billed_image::numeric + billed_text + billed_output ELSE 0 END)
                AS unverified_tokens,
            sum(billed_cost_nanos) AS cost_nanos
        FROM ledger_entries
        WHERE day >= $1 AND state IN ('settled', 'unverified')
        GROUP BY day, tenant, model, currency
     )
     SELECT day, tenant, model, currency,
        coalesce(usage.calls, 0) AS calls,
        coalesce(usage.unverified_calls, 0) AS unverified_calls,
        coalesce(usage.image_tokens, 0) AS image_tokens,
        coalesce(usage.text_tokens, 0) AS text_tokens,
        coalesce(usage.output_tokens, 0) AS output_tokens,
        coalesce(usage.unverified_tokens, 0) AS unverified_tokens,
        coalesce(usage.cost_nanos, 0) AS cost_nanos,
        coalesce(recount.calls, 0)::text AS recounted_calls,
        coalesce(recount.unverified_calls, 0)::text AS recounted_unverified_calls,
        coalesce(recount.image_tokens, 0)::text AS recounted_image_tokens,
        coalesce(recount.text_tokens, 0)::text AS recounted_text_tokens,
        coalesce(recount.output_tokens, 0)::text AS recounted_output_tokens,
        coalesce(recount.unverified_tokens, 0)::text AS recounted_unverified_tokens,
        coalesce(recount.cost_nanos, 0)::text AS recounted_cost_nanos
     FROM (SELECT * FROM ledger_usage WHERE day >= $1) AS usage
     FULL JOIN recounts AS recount USING (day, tenant, model, currency)
     WHERE coalesce(usage.calls, 0) <> coalesce(recount.calls, 0)
        OR coalesce(usage.unverified_calls, 0) <> coalesce(recount.unverified_calls, 0)
        OR coalesce(usage.image_tokens, 0) <> coalesce(recount.image_tokens, 0)
        OR coalesce(usage.text_tokens, 0) <> coalesce(recount.text_tokens, 0)
        OR coalesce(usage.output_tokens, 0) <> coalesce(recount.output_tokens, 0)
        OR coalesce(usage.unverified_tokens, 0) <> coalesce(recount.unverified_tokens, 0)
        OR coalesce(usage.cost_nanos, 0) <> coalesce(recount.cost_nanos, 0)
     ORDER BY day, tenant, model, currency";
