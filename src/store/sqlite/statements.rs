//! The statements whose text differs from PostgreSQL's.

use crate::store::statement::Statements;

pub(in crate::store) const STATEMENTS: Statements = Statements {
    register_instance: "INSERT INTO ledger_holders (id, beat) VALUES ($1, 0)",
    raise_heartbeat: "UPDATE ledger_holders SET beat = beat + 1 WHERE id = $1",
    heartbeats: "SELECT id, beat FROM ledger_holders",
    expire_instance: "DELETE FROM ledger_holders WHERE id = $1",
    orphans: "SELECT id FROM ledger_entries
        WHERE state = 'open' AND holder NOT IN (SELECT id FROM ledger_holders) AND id > $1
        ORDER BY id LIMIT $2",
    accounts: "SELECT tenant, period, starts_on, unit, granted, settled, released, excess, reserved
        FROM ledger_accounts
        WHERE tenant IN (SELECT value FROM json_each($1))
            AND period IN ('day', 'month') AND starts_on IN ($2, $3)
            AND (period = 'day' AND starts_on = $2 OR period = 'month' AND starts_on = $3)
        ORDER BY tenant, period, unit",
    prune: "DELETE FROM ledger_entries WHERE id IN (
        SELECT id FROM ledger_entries
        WHERE id < $1 AND day < $2 AND state <> 'open' ORDER BY id LIMIT $3)",
    differing_accounts: DIFFERING_ACCOUNTS,
    differing_usage: DIFFERING_USAGE,
    usage_by,
};

/// Sums are added in two parts, as for [`DIFFERING_ACCOUNTS`].
fn usage_by(named: &str, hour: &str) -> String {
    format!(
        "WITH parts AS (
            SELECT CAST({named} AS TEXT) AS named, CAST({hour} AS INTEGER) AS hour, tenant, currency,
                count(*) AS calls, count(*) FILTER (WHERE state = 'unverified') AS unverified_calls,
                sum(billed_image / 1000000000) AS image_billions,
                sum(billed_image % 1000000000) AS image_rest,
                sum(billed_text / 1000000000) AS text_billions,
                sum(billed_text % 1000000000) AS text_rest,
                sum(billed_output / 1000000000) AS output_billions,
                sum(billed_output % 1000000000) AS output_rest,
                sum(billed_image / 1000000000 + billed_text / 1000000000
                    + billed_output / 1000000000) FILTER (WHERE state = 'unverified')
                    AS unverified_billions,
                sum(billed_image % 1000000000 + billed_text % 1000000000
                    + billed_output % 1000000000) FILTER (WHERE state = 'unverified')
                    AS unverified_rest,
                sum(billed_cost_nanos / 1000000000) AS cost_billions,
                sum(billed_cost_nanos % 1000000000) AS cost_rest
            FROM ledger_entries
            WHERE day BETWEEN $1 AND $2 AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
                AND state IN ('settled', 'unverified')
            GROUP BY 1, 2, tenant, currency
         )
         SELECT named, hour, tenant, currency, printf('%d', calls) AS calls,
            printf('%d', unverified_calls) AS unverified_calls,
            printf('%d%09d', image_billions + image_rest / 1000000000, image_rest % 1000000000)
                AS image_tokens,
            printf('%d%09d', text_billions + text_rest / 1000000000, text_rest % 1000000000)
                AS text_tokens,
            printf('%d%09d', output_billions + output_rest / 1000000000,
                output_rest % 1000000000) AS output_tokens,
            printf('%d%09d', unverified_billions + unverified_rest / 1000000000,
                unverified_rest % 1000000000) AS unverified_tokens,
            printf('%d%09d', cost_billions + cost_rest / 1000000000, cost_rest % 1000000000)
                AS cost_nanos
         FROM parts ORDER BY named NULLS FIRST, hour NULLS FIRST, tenant, currency"
    )
}

/// The accounts from a day on whose counts differ from their entries.
///
/// SQLite has no integers beyond those of its columns: a sum that exceeds them fails, or becomes a float. So whole
/// billions and the rest are added separately and concatenated as decimal text. Cast to a number, a text that fits into
/// a column is that integer, and a larger one is a float that equals no column.
const DIFFERING_ACCOUNTS: &str = "WITH days AS (
        SELECT tenant, day, currency, state,
            sum(bound_image / 1000000000 + bound_text / 1000000000
                + bound_output / 1000000000) AS bound_billions,
            sum(bound_image % 1000000000 + bound_text % 1000000000
                + bound_output % 1000000000) AS bound_rest,
            sum(bound_cost_nanos / 1000000000) AS bound_cost_billions,
            sum(bound_cost_nanos % 1000000000) AS bound_cost_rest,
            sum(billed_image / 1000000000 + billed_text / 1000000000
                + billed_output / 1000000000) AS billed_billions,
            sum(billed_image % 1000000000 + billed_text % 1000000000
                + billed_output % 1000000000) AS billed_rest,
            sum(billed_cost_nanos / 1000000000) AS billed_cost_billions,
            sum(billed_cost_nanos % 1000000000) AS billed_cost_rest
        FROM ledger_entries WHERE day >= $1 GROUP BY tenant, day, currency, state
     ), amounts AS (
        SELECT tenant, day, state, 'tokens' AS unit,
            bound_billions, bound_rest, billed_billions, billed_rest
        FROM days
        UNION ALL
        SELECT tenant, day, state, currency,
            bound_cost_billions, bound_cost_rest, billed_cost_billions, billed_cost_rest
        FROM days
     ), windows AS (
        SELECT tenant, 'day' AS period, day AS starts_on, unit, state,
            bound_billions, bound_rest, billed_billions, billed_rest
        FROM amounts
        UNION ALL
        SELECT tenant, 'month', substr(day, 1, 8) || '01', unit, state,
            bound_billions, bound_rest, billed_billions, billed_rest
        FROM amounts WHERE substr(day, 1, 8) || '01' >= $1
     ), recounts AS (
        SELECT tenant, period, starts_on, unit,
            printf('%d%09d',
                sum(bound_billions) + sum(bound_rest) / 1000000000,
                sum(bound_rest) % 1000000000) AS granted,
            printf('%d%09d',
                sum(billed_billions) + sum(billed_rest) / 1000000000,
                sum(billed_rest) % 1000000000) AS settled,
            printf('%d%09d',
                sum(bound_billions) FILTER (WHERE state = 'open')
                    + sum(bound_rest) FILTER (WHERE state = 'open') / 1000000000,
                sum(bound_rest) FILTER (WHERE state = 'open') % 1000000000) AS reserved
        FROM windows GROUP BY tenant, period, starts_on, unit
     )
     SELECT tenant, period, starts_on, unit,
        coalesce(account.granted, 0) AS granted,
        coalesce(account.settled, 0) AS settled,
        coalesce(account.reserved, 0) AS reserved,
        coalesce(recount.granted, '0') AS recounted_granted,
        coalesce(recount.settled, '0') AS recounted_settled,
        coalesce(recount.reserved, '0') AS recounted_reserved
     FROM (SELECT * FROM ledger_accounts WHERE starts_on >= $1) AS account
     FULL JOIN recounts AS recount USING (tenant, period, starts_on, unit)
     WHERE coalesce(account.granted, 0) <> CAST(coalesce(recount.granted, '0') AS NUMERIC)
        OR coalesce(account.settled, 0) <> CAST(coalesce(recount.settled, '0') AS NUMERIC)
        OR coalesce(account.reserved, 0) <> CAST(coalesce(recount.reserved, '0') AS NUMERIC)
     ORDER BY tenant, period, starts_on, unit";

/// The daily sums from a day on that differ from their entries, added as for [`DIFFERING_ACCOUNTS`].
const DIFFERING_USAGE: &str = "WITH parts AS (
        SELECT day, tenant, model, currency, count(*) AS calls,
            count(*) FILTER (WHERE state = 'unverified') AS unverified_calls,
            sum(billed_image / 1000000000) AS image_billions, sum(billed_image % 1000000000) AS image_rest,
            sum(billed_text / 1000000000) AS text_billions, sum(billed_text % 1000000000) AS text_rest,
            sum(billed_output / 1000000000) AS output_billions,
            sum(billed_output % 1000000000) AS output_rest,
            sum(billed_image / 1000000000 + billed_text / 1000000000
                + billed_output / 1000000000) FILTER (WHERE state = 'unverified') AS unverified_billions,
            sum(billed_image % 1000000000 + billed_text % 1000000000
                + billed_output % 1000000000) FILTER (WHERE state = 'unverified') AS unverified_rest,
            sum(billed_cost_nanos / 1000000000) AS cost_billions,
            sum(billed_cost_nanos % 1000000000) AS cost_rest
        FROM ledger_entries
        WHERE day >= $1 AND state IN ('settled', 'unverified')
        GROUP BY day, tenant, model, currency
     ), recounts AS (
        SELECT day, tenant, model, currency, printf('%d', calls) AS calls,
            printf('%d', unverified_calls) AS unverified_calls,
            printf('%d%09d', image_billions + image_rest / 1000000000, image_rest % 1000000000)
                AS image_tokens,
            printf('%d%09d', text_billions + text_rest / 1000000000, text_rest % 1000000000)
                AS text_tokens,
            printf('%d%09d', output_billions + output_rest / 1000000000, output_rest % 1000000000)
                AS output_tokens,
            printf('%d%09d', unverified_billions + unverified_rest / 1000000000, unverified_rest % 1000000000)
                AS unverified_tokens,
            printf('%d%09d', cost_billions + cost_rest / 1000000000, cost_rest % 1000000000)
                AS cost_nanos
        FROM parts
     )
     SELECT day, tenant, model, currency,
        coalesce(usage.calls, 0) AS calls,
        coalesce(usage.unverified_calls, 0) AS unverified_calls,
        coalesce(usage.image_tokens, 0) AS image_tokens,
        coalesce(usage.text_tokens, 0) AS text_tokens,
        coalesce(usage.output_tokens, 0) AS output_tokens,
        coalesce(usage.unverified_tokens, 0) AS unverified_tokens,
        coalesce(usage.cost_nanos, 0) AS cost_nanos,
        coalesce(recount.calls, '0') AS recounted_calls,
        coalesce(recount.unverified_calls, '0') AS recounted_unverified_calls,
        coalesce(recount.image_tokens, '0') AS recounted_image_tokens,
        coalesce(recount.text_tokens, '0') AS recounted_text_tokens,
        coalesce(recount.output_tokens, '0') AS recounted_output_tokens,
        coalesce(recount.unverified_tokens, '0') AS recounted_unverified_tokens,
        coalesce(recount.cost_nanos, '0') AS recounted_cost_nanos
     FROM (SELECT * FROM ledger_usage WHERE day >= $1) AS usage
     FULL JOIN recounts AS recount USING (day, tenant, model, currency)
     WHERE coalesce(usage.calls, 0) <> CAST(coalesce(recount.calls, '0') AS NUMERIC)
        OR coalesce(usage.unverified_calls, 0) <> CAST(coalesce(recount.unverified_calls, '0') AS NUMERIC)
        OR coalesce(usage.image_tokens, 0) <> CAST(coalesce(recount.image_tokens, '0') AS NUMERIC)
        OR coalesce(usage.text_tokens, 0) <> CAST(coalesce(recount.text_tokens, '0') AS NUMERIC)
        OR coalesce(usage.output_tokens, 0) <> CAST(coalesce(recount.output_tokens, '0') AS NUMERIC)
        OR coalesce(usage.unverified_tokens, 0) <> CAST(coalesce(recount.unverified_tokens, '0') AS NUMERIC)
        OR coalesce(usage.cost_nanos, 0) <> CAST(coalesce(recount.cost_nanos, '0') AS NUMERIC)
     ORDER BY day, tenant, model, currency";
