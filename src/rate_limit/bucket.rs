//! The bucket script, its arguments and its reply.
//!
//! Amounts are converted to times here, in integer arithmetic that cannot overflow. Lua numbers are doubles, so no
//! number above 2^52 is passed to the script or returned by it.

use std::sync::LazyLock;

use crate::redis::link::Link;
use crate::redis::script::{Script, ScriptCall};

/// The script that takes from a bucket and gives back to it.
static BUCKET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("bucket.lua")));

const MICROS_PER_MINUTE: u128 = 60_000_000;

/// The largest quota that the script computes exactly, in units per minute. A larger quota is treated as this one.
const LARGEST_QUOTA: u64 = 1 << 52;

/// The longest time until an amount is available again, in microseconds: 71 years.
const LONGEST_COST: u64 = 1 << 51;

/// An action on a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Take an amount if there is room for it.
    Take,
    /// Take an amount unconditionally.
    Charge,
    /// Give back an amount that was taken.
    GiveBack,
}

/// One call of the script.
#[derive(Debug)]
pub(super) struct BucketCall<'a> {
    key: &'a str,
    quota: u64,
    action: Action,
    micros: u64,
    parts: u64,
    now_micros: Option<u64>,
}

/// The reply of the script.
#[derive(Debug, Clone, Copy)]
pub(super) struct BucketAnswer {
    /// Whether the amount was taken, charged or given back.
    pub(super) passed: bool,
    /// Microseconds after which a rejected take would pass.
    pub(super) wait_micros: u64,
    used_micros: u64,
    used_parts: u64,
    quota: u64,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Charge => "charge",
            Self::GiveBack => "give_back",
        }
    }
}

impl<'a> BucketCall<'a> {
    /// Creates a call of `action` for `amount` units, with a quota of `quota` units per minute. The time is
    /// `now_micros` since 1970, or the time of the Redis server if `None`.
    pub(super) fn new(
        key: &'a str,
        quota: u64,
        action: Action,
        amount: u64,
        now_micros: Option<u64>,
    ) -> Self {
        let quota = quota.min(LARGEST_QUOTA);
        let all_parts = u128::from(amount) * MICROS_PER_MINUTE;
        let micros = u64::try_from(all_parts / u128::from(quota)).unwrap_or(u64::MAX);
        let parts = u64::try_from(all_parts % u128::from(quota)).unwrap_or(0);
        Self { key, quota, action, micros: micros.min(LONGEST_COST), parts, now_micros }
    }

    /// Runs the script; `None` if Redis is unavailable. A take may be sent twice, which can only make the limit
    /// stricter.
    pub(super) async fn run(&self, link: &Link) -> Option<BucketAnswer> {
        let call = self.script_call();
        let call = if self.action == Action::Take { call.repeatable() } else { call };
        let (passed, wait_micros, used_micros, used_parts) = link.run(&call).await?;
        Some(BucketAnswer { passed, wait_micros, used_micros, used_parts, quota: self.quota })
    }

    fn script_call(&self) -> ScriptCall<'static> {
        let call = BUCKET.on(self.key).arg(self.quota).arg(self.action.as_str());
        let call = call.arg(self.micros).arg(self.parts);
        match self.now_micros {
            Some(now) => call.arg(now),
            None => call,
        }
    }
}

/// Writes to a bucket that belongs to no tenant. This detects a read-only replica, a user without write permission or a
/// full memory before the next request does.
pub(super) fn probe() -> ScriptCall<'static> {
    let key = "ocr-gateway:probe";
    BucketCall::new(key, LARGEST_QUOTA, Action::Charge, LARGEST_QUOTA, None).script_call()
}

impl BucketAnswer {
    /// The units in use, rounded up. More than the quota if there is debt.
    pub(super) fn in_use(&self) -> u64 {
        let parts = u128::from(self.used_micros) * u128::from(self.quota);
        let units = (parts + u128::from(self.used_parts)).div_ceil(MICROS_PER_MINUTE);
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(amount: u64, quota: u64) -> (u64, u64) {
        let call = BucketCall::new("", quota, Action::Take, amount, None);
        (call.micros, call.parts)
    }

    #[test]
    fn an_amount_becomes_the_exact_time_in_which_it_comes_back() {
        assert_eq!(cost(1, 60), (1_000_000, 0));
        assert_eq!(cost(1, 7), (8_571_428, 4));
        assert_eq!(cost(7, 7), (60_000_000, 0));
        assert_eq!(cost(1, 1_000_000_000), (0, 60_000_000));
    }

    #[test]
    fn no_amount_and_no_quota_leaves_what_a_double_holds_exactly() {
        for (amount, quota) in [(u64::MAX, 1), (u64::MAX, u64::MAX), (1, u64::MAX)] {
            let call = BucketCall::new("", quota, Action::Take, amount, None);
            assert!(call.micros <= 1 << 51 && call.parts < call.quota && call.quota <= 1 << 52);
        }
    }

    #[test]
    fn what_is_in_use_is_told_in_units_and_rounded_up() {
        let answer = |used_micros, used_parts, quota| BucketAnswer {
            passed: false,
            wait_micros: 0,
            used_micros,
            used_parts,
            quota,
        };
        assert_eq!(answer(8_571_428, 4, 7).in_use(), 1);
        assert_eq!(answer(8_571_428, 5, 7).in_use(), 2);
        assert_eq!(answer(120_000_000, 0, 7).in_use(), 14);
        assert_eq!(answer(1 << 52, 0, 1 << 52).in_use(), u64::MAX);
    }
}
