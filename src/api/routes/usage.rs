//! `GET /usage`: the tenant's spending and the rest of its budgets.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use jiff::ToSpan;
use jiff::civil::Date;

use crate::admission;
use crate::api::entrance::enter;
use crate::api::options::{invalid, unknown};
use crate::api::problem::{Flaw, Limit, Problem};
use crate::auth::tenant::Tenant;
use crate::code::ErrorCode;
use crate::gateway::Gateway;
use crate::ledger::LedgerStoreError;
use crate::ledger::report::{BudgetsReport, UsageReport};
use crate::ledger::usage::{UsageQuery, day_named};

/// The most days in one answer: a leap year.
const MOST_DAYS: i32 = 366;

/// The most rows in one answer: some two dozen models on each day of a year.
const MOST_ROWS: u64 = 10_000;

/// The names of the options.
const NAMES: [&str; 2] = ["from", "to"];

/// Reports the tenant's own spend.
pub(in crate::api) async fn usage(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Json<UsageReport>, Problem> {
    let entered = enter(&gateway, &request).await?;
    let query = request.uri().query().unwrap_or_default();
    report(&gateway, &entered.tenant, query).await.map(Json)
}

async fn report(gateway: &Gateway, tenant: &Tenant, query: &str) -> Result<UsageReport, Problem> {
    let ledger = &gateway.ledger;
    let today = ledger.today();
    let query = read(query, tenant.name.as_str(), today)?;
    let rows = ledger.usage_rows(&query).await?;
    if rows > MOST_ROWS {
        let why = format!(
            "reaches back over {rows} rows of days and models: at most {MOST_ROWS} are told at once; \
             ask for fewer days"
        );
        return Err(beyond("rows", rows, MOST_ROWS, &why));
    }
    let (accounts, rows) =
        tokio::try_join!(ledger.accounts(tenant.name.as_str()), ledger.usage(&query))?;
    let currencies = gateway.catalog.sold_in(&tenant.regions).map(|model| model.price.currency);
    let budgets = admission::budgets(tenant);
    let budgets = BudgetsReport::of(&budgets, &accounts, currencies, ledger.calendar(), today);
    let report = UsageReport::new(tenant.name.to_string(), &query, budgets, rows);
    Ok(report.map_err(|error| LedgerStoreError::Broken(error.into()))?)
}

/// The days of the query; by default those of this month.
fn read(query: &str, tenant: &str, today: Date) -> Result<UsageQuery, Problem> {
    let mut given = [None, None];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let Some(place) = NAMES.iter().position(|known| *known == name) else {
            return Err(unknown(&name, &NAMES));
        };
        if given[place].as_ref().is_some_and(|before| *before != value) {
            return Err(invalid(&name, "was given twice with different values"));
        }
        given[place] = Some(value);
    }
    let (mut days, mut flaws) = ([None, None], Vec::new());
    for ((name, text), day) in NAMES.iter().zip(&given).zip(&mut days) {
        match text.as_deref().map(day_named).transpose() {
            Ok(named) => *day = named,
            Err(error) => flaws.push(Flaw::of(name, ErrorCode::InvalidOption, error.to_string())),
        }
    }
    if let Some(problem) = Problem::of_flaws(flaws) {
        return Err(problem);
    }
    let [from, to] = days;
    let query = UsageQuery::of(Some(tenant.to_owned()), from, to, today)
        .map_err(|error| invalid("from", &error.to_string()))?;
    let earliest = query.to.saturating_sub((MOST_DAYS - 1).days());
    if query.from < earliest {
        let days = query.to.since(query.from).map_or(0, |span| span.get_days().unsigned_abs());
        let why =
            format!("is before {earliest}: at most {MOST_DAYS} days up to `to` can be asked for");
        return Err(beyond("days", u64::from(days) + 1, MOST_DAYS.unsigned_abs().into(), &why));
    }
    Ok(query)
}

/// A report that would be too large.
fn beyond(name: &'static str, actual: u64, allowed: u64, why: &str) -> Problem {
    let limit = Limit { name, actual: actual.into(), allowed: allowed.into() };
    Problem { limit: Some(Box::new(limit)), ..invalid("from", why) }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    const TODAY: Date = date(2026, 5, 14);

    fn days(query: &str) -> Result<(Date, Date), Problem> {
        read(query, "acme", TODAY).map(|query| (query.from, query.to))
    }

    fn code(query: &str) -> &'static str {
        days(query).unwrap_err().code.as_str()
    }

    #[test]
    fn without_a_wish_the_month_so_far_is_told() {
        assert_eq!(days("").unwrap(), (date(2026, 5, 1), TODAY));
        assert_eq!(days("to=2026-02-03").unwrap(), (date(2026, 2, 1), date(2026, 2, 3)));
        assert_eq!(days("from=2026-05-14").unwrap(), (TODAY, TODAY));
    }

    #[test]
    fn nobody_but_the_caller_is_asked_about() {
        assert_eq!(read("", "acme", TODAY).unwrap().tenant.as_deref(), Some("acme"));
        assert_eq!(code("tenant=another"), "unknown_option");
    }

    #[test]
    fn a_year_may_be_asked_for_and_no_day_more() {
        assert!(days("from=2024-01-01&to=2024-12-31").is_ok());
        let problem = days("from=2024-01-01&to=2025-01-01").unwrap_err();
        assert_eq!(
            (problem.code.as_str(), &*problem.errors[0].pointer),
            ("invalid_option", "/from")
        );
        assert!(problem.detail.contains("is before 2024-01-02: at most 366 days"), "{problem:?}");
        let limit = problem.limit.unwrap();
        assert_eq!(*limit, Limit { name: "days", actual: 367.into(), allowed: 366.into() });
        assert_eq!(code("from=-009999-01-01"), "invalid_option");
    }

    #[test]
    fn wrong_days_are_refused() {
        for wrong in [
            "from=yesterday",
            "from=",
            "from=2026-13-01",
            "from=2026-02-29",
            "from=20260501",
            "from=2026-05-01T23:00:00Z",
            "from=2026-05-14&to=2026-05-13",
            "to=2026-4-1",
        ] {
            assert_eq!(code(wrong), "invalid_option", "{wrong}");
        }
    }

    #[test]
    fn both_wrong_days_are_told_at_once() {
        let problem = days("from=soon&to=later").unwrap_err();
        let pointers: Vec<_> = problem.errors.iter().map(|flaw| flaw.pointer.as_str()).collect();
        assert_eq!(pointers, ["/from", "/to"]);
        assert!(problem.detail.starts_with("from must be a day like 2026-01-31"), "{problem:?}");
    }

    #[test]
    fn an_unknown_option_is_named_as_json_pointers_want_it() {
        let problem = days("from=2026-05-01&x~/y=1").unwrap_err();
        assert_eq!(
            (problem.code.as_str(), &*problem.errors[0].pointer),
            ("unknown_option", "/x~0~1y")
        );
        assert!(problem.detail.contains("Options: from, to"), "{problem:?}");
    }

    #[test]
    fn a_day_given_twice_is_one_day_and_two_days_are_refused() {
        assert!(days("from=2026-05-02&from=2026-05-02").is_ok());
        assert_eq!(code("from=2026-05-02&from=2026-05-03"), "invalid_option");
    }
}
