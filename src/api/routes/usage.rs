//! `GET /usage`: what the caller spent, and what is left of its budgets.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::ToSpan;
use jiff::civil::Date;

use crate::admission;
use crate::api::entrance::authenticate;
use crate::api::problem::{Flaw, Problem};
use crate::gateway::Gateway;
use crate::ledger::LedgerStoreError;
use crate::ledger::report::{BudgetsReport, TotalReport, UsageReport};
use crate::ledger::usage::UsageQuery;
use crate::ledger::window::day_of;

/// The most days of one answer: a leap year.
const MOST_DAYS: i32 = 366;

/// The caller's own spend.
pub(in crate::api) async fn usage(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = authenticate(&gateway, &headers).await?;
    let today = day_of(gateway.clock.timestamp());
    let (from, to) = days(query.as_deref().unwrap_or_default(), today)?;
    let name = tenant.name.to_string();
    let query = UsageQuery { tenant: Some(name.clone()), from, to };
    let (accounts, rows) =
        tokio::try_join!(gateway.ledger.accounts(&name), gateway.ledger.usage(&query))
            .map_err(|error| unreadable(&error))?;
    let report = UsageReport {
        tenant: name,
        from,
        to,
        budgets: BudgetsReport::of(&admission::budgets(&tenant), &accounts, today),
        total: TotalReport::of(&rows),
        days: rows.into_iter().map(Into::into).collect(),
    };
    Ok(Json(report).into_response())
}

/// The days that are asked for; by default those of this month.
fn days(query: &str, today: Date) -> Result<(Date, Date), Problem> {
    let (mut from, mut to, mut flaws) = (None, None, Vec::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "from" => &mut from,
            "to" => &mut to,
            _ => {
                let detail = "is not an option; options: from, to";
                flaws.push(flaw(&name, "unknown_option", detail));
                continue;
            }
        };
        match value.parse::<Date>() {
            Ok(day) if place.is_none_or(|before| before == day) => *place = Some(day),
            Ok(_) => flaws.push(flaw(&name, "invalid_option", "is given twice with other values")),
            Err(_) => flaws.push(flaw(&name, "invalid_option", "is a day like 2026-01-31")),
        }
    }
    let to = to.unwrap_or(today);
    let from = from.unwrap_or_else(|| to.first_of_month());
    if flaws.is_empty() && from > to {
        flaws.push(flaw("from", "invalid_option", "is after the last day, `to`"));
    }
    if flaws.is_empty() && from < to.saturating_sub((MOST_DAYS - 1).days()) {
        flaws.push(flaw(
            "from",
            "invalid_option",
            "is more than 366 days before the last day, `to`",
        ));
    }
    let Some(first) = flaws.first() else { return Ok((from, to)) };
    let detail = "The query cannot be understood; `errors` says where.";
    Err(Problem { errors: flaws.clone(), ..Problem::bad_request(first.code, detail) })
}

fn flaw(name: &str, code: &'static str, detail: &str) -> Flaw {
    // A name is the caller's own text; what is told of it is bounded.
    let name: String = name.chars().take(64).collect();
    let pointer = name.replace('~', "~0").replace('/', "~1");
    Flaw { pointer: format!("/{pointer}"), code, detail: detail.to_owned() }
}

fn unreadable(error: &LedgerStoreError) -> Problem {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "the ledger could not be read");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_unavailable",
        "The gateway cannot tell now what is spent",
        "The ledger is not available.",
    )
    .after(std::time::Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    const TODAY: Date = date(2026, 5, 14);

    fn code(query: &str) -> &'static str {
        days(query, TODAY).unwrap_err().code
    }

    #[test]
    fn without_a_wish_the_month_so_far_is_told() {
        assert_eq!(days("", TODAY).unwrap(), (date(2026, 5, 1), TODAY));
        assert_eq!(days("to=2026-02-03", TODAY).unwrap(), (date(2026, 2, 1), date(2026, 2, 3)));
    }

    #[test]
    fn a_year_may_be_asked_for_and_no_day_more() {
        assert!(days("from=2024-01-01&to=2024-12-31", TODAY).is_ok());
        assert_eq!(code("from=2024-01-01&to=2025-01-01"), "invalid_option");
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        assert_eq!(code("form=2026-01-01"), "unknown_option");
        for wrong in ["from=yesterday", "from=2026-13-01", "from=2026-05-14&to=2026-05-13"] {
            assert_eq!(code(wrong), "invalid_option", "{wrong}");
        }
        let twice = days("from=2026-05-01&from=2026-05-02&x~/y=1", TODAY).unwrap_err();
        let pointers: Vec<_> = twice.errors.iter().map(|flaw| flaw.pointer.as_str()).collect();
        assert_eq!(pointers, ["/from", "/x~0~1y"]);
    }
}
