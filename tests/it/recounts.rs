//! An audit and a usage report name invalid rows, whatever numbers and days the ledger has.

use crate::databases::Database;
use crate::harness::SCRIPTED_TEXT;
use crate::program::Installation;

/// A balanced ledger: one settled call and one open one.
const BALANCED: &str = "
    DELETE FROM ledger_entries;
    DELETE FROM ledger_accounts;
    DELETE FROM ledger_usage;
    INSERT INTO ledger_entries (id, holder, tenant, model, currency, day, state,
        bound_image, bound_text, bound_output, bound_cost_nanos,
        billed_image, billed_text, billed_output, billed_cost_nanos)
    VALUES ('01999999-0000-7000-8000-000000000001', '01999999-0000-7000-8000-000000000000', 'acme',
            'm', 'CNY', '2026-04-30', 'settled', 10, 2, 8, 30, 10, 2, 8, 30),
           ('01999999-0000-7000-8000-000000000002', '01999999-0000-7000-8000-000000000000', 'acme',
            'm', 'CNY', '2026-04-30', 'open', 10, 2, 8, 30, 0, 0, 0, 0);
    INSERT INTO ledger_accounts (tenant, period, starts_on, unit, granted, settled, released, excess,
        reserved)
    VALUES ('acme', 'day', '2026-04-30', 'tokens', 40, 20, 0, 0, 20),
           ('acme', 'day', '2026-04-30', 'CNY', 60, 30, 0, 0, 30),
           ('acme', 'month', '2026-04-01', 'tokens', 40, 20, 0, 0, 20),
           ('acme', 'month', '2026-04-01', 'CNY', 60, 30, 0, 0, 30);
    INSERT INTO ledger_usage (day, tenant, model, currency, calls, unverified_calls, image_tokens,
        text_tokens, output_tokens, unverified_tokens, cost_nanos)
    VALUES ('2026-04-30', 'acme', 'm', 'CNY', 1, 0, 10, 2, 8, 0, 30)";

/// An installation on `database`, in which no day is too old for a recount.
async fn installation(database: &Database) -> Installation {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    installation.set("DATABASE__URL", &database.url);
    installation.set("LEDGER__RETENTION_DAYS", "36500");
    assert_eq!(installation.run("migrate").await.code, 0);
    installation
}

#[tokio::test]
async fn an_audit_names_what_is_wrong_whatever_the_rows_hold() {
    let mut told_by_engine = Vec::new();
    for database in Database::of_each_engine().await {
        let installation = installation(&database).await;
        let mut told = String::new();
        for damage in [
            "UPDATE ledger_entries
             SET bound_image = 9223372036854775807, billed_image = 9223372036854775807",
            "UPDATE ledger_entries SET billed_image = 9223372036854775807,
                billed_text = 9223372036854775807, billed_output = 9223372036854775807
             WHERE state = 'settled'",
            "UPDATE ledger_entries
             SET bound_cost_nanos = 9223372036854775807, billed_cost_nanos = 9223372036854775807",
            "UPDATE ledger_entries SET state = 'open', bound_output = 9223372036854775807",
            "UPDATE ledger_entries SET state = 'unverified', billed_text = 9223372036854775807",
            "UPDATE ledger_accounts
             SET granted = 9223372036854775807, released = 9223372036854775767
             WHERE unit = 'tokens'",
            "UPDATE ledger_usage SET image_tokens = -9223372036854775807 - 1,
                unverified_tokens = 9223372036854775807",
            "UPDATE ledger_entries SET day = '2026-04-31'",
            "UPDATE ledger_accounts SET starts_on = 'someday' WHERE period = 'day'",
            "UPDATE ledger_usage SET day = '9999-99-99'",
        ] {
            database.execute(BALANCED).await;
            let audit = installation.run("audit --from 2026-04-01").await;
            assert_eq!((audit.code, audit.err.as_str()), (0, ""), "{}", audit.out);
            database.execute(damage).await;
            let audit = installation.run("audit --from 2026-04-01").await;
            let case = format!("{}, {damage}: {}{}", database.engine, audit.out, audit.err);
            assert_eq!((audit.code, audit.err.as_str()), (1, ""), "{case}");
            assert!(audit.out.lines().all(|line| line.starts_with("acme, ")), "{case}");
            told += &audit.out;
        }
        // Twice the largest number of a column, plus the ten tokens beside it.
        let exact = "acme, day of 2026-04-30, tokens: granted is 40, by its entries \
                     18446744073709551634; settled is 20, by its entries 18446744073709551624";
        assert!(told.contains(exact), "{}: {told}", database.engine);
        told_by_engine.push(told);
    }
    assert!(told_by_engine.windows(2).all(|pair| pair[0] == pair[1]), "{told_by_engine:#?}");
}

#[tokio::test]
async fn a_report_of_usage_names_the_row_that_cannot_be_right() {
    for database in Database::of_each_engine().await {
        let installation = installation(&database).await;
        for damage in [
            "UPDATE ledger_usage SET image_tokens = -1",
            "UPDATE ledger_usage SET cost_nanos = -9223372036854775807 - 1",
            "UPDATE ledger_usage SET image_tokens = 9223372036854775807,
                text_tokens = 9223372036854775807, output_tokens = 9223372036854775807",
            "UPDATE ledger_usage SET day = '2026-04-31'",
            "UPDATE ledger_usage
             SET image_tokens = 9223372036854775807, text_tokens = 0, output_tokens = 0;
             INSERT INTO ledger_usage SELECT day, 'b', model, currency, calls, unverified_calls,
                9223372036854775000, 0, 0, 0, 0 FROM ledger_usage;
             INSERT INTO ledger_usage SELECT day, 'c', model, currency, calls, unverified_calls,
                1000, 0, 0, 0, 0 FROM ledger_usage WHERE tenant = 'acme'",
            "UPDATE ledger_usage SET cost_nanos = 9223372036854775807;
             INSERT INTO ledger_usage SELECT day, 'b', model, currency, calls, unverified_calls,
                0, 0, 0, 0, 9223372036854775000 FROM ledger_usage;
             INSERT INTO ledger_usage SELECT day, 'c', model, currency, calls, unverified_calls,
                0, 0, 0, 0, 1000 FROM ledger_usage WHERE tenant = 'acme'",
        ] {
            for format in ["table", "json", "csv"] {
                database.execute(BALANCED).await;
                database.execute(damage).await;
                let usage = format!("usage --from 2026-04-01 --to 2026-05-01 --format {format}");
                let usage = installation.run(&usage).await;
                let case = format!("{}, {damage}: {}{}", database.engine, usage.out, usage.err);
                assert_eq!((usage.code, usage.out.as_str()), (1, ""), "{case}");
                let row = usage.err.contains("2026-04-3") && usage.err.contains(", acme, m, CNY");
                assert!(row, "{case}");
            }
        }
    }
}
