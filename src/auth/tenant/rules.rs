//! The rules for a tenant's settings: a limit without effect is an error.

use std::fmt;
use std::num::NonZeroU64;

use super::{Tenant, TenantName};
use crate::units::{Money, Pixels};

/// The lowest valid cap, in pixels.
///
/// DashScope enlarges an image below a model's `min_pixels`, so a lower cap would have no effect. `min_pixels` is 4
/// cells of 28×28 = 3136 for the older models and 3 cells of 32×32 = 3072 for the newer ones ("Text extraction
/// (Qwen-OCR)"). A tenant may use both, so the higher value is the limit.
pub const LOWEST_CAP: Pixels = Pixels::new(4 * 28 * 28);

/// The largest limit that both databases can store. Their integers are signed.
const LARGEST_LIMIT: u64 = i64::MAX.unsigned_abs();

/// The maximum number of names in a tenant's list of models or regions. The vendor sells seven models for this task, in
/// three regions.
const NAMES_AT_MOST: usize = 100;

/// The maximum number of characters in the name of a model or a region.
const NAME_LENGTH: usize = 128;

/// The longest time for which an answer may be kept, in seconds: a day. A job's result is kept no longer either.
const LONGEST_CACHE_TTL: u64 = 24 * 60 * 60;

/// [`LARGEST_LIMIT`] as an amount of money, in billionths.
const LARGEST_COST: Money = Money::from_nanos(LARGEST_LIMIT);

/// A tenant with a setting that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tenant {name}: {fault}")]
pub struct InvalidTenant {
    /// The name of the tenant.
    pub name: TenantName,
    /// The violated rule.
    pub fault: SettingFault,
}

/// A violated rule for a tenant's setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingFault {
    /// A model would enlarge the image beyond the cap.
    #[error("max_pixels is {actual}, which a model's own floor overrides; at least {LOWEST_CAP}")]
    CapTooLow {
        /// The cap in the setting.
        actual: Pixels,
    },
    /// A number above the range of the database columns.
    #[error("{setting} is {actual}; at most {LARGEST_LIMIT}")]
    TooLarge {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        actual: u64,
    },
    /// An amount above the range of the database columns.
    #[error("{setting} is {actual}; at most {LARGEST_COST}")]
    TooMuchMoney {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        actual: Money,
    },
    /// A budget of zero, which would be a second way to disable a tenant.
    #[error("{setting} is 0; leave it out for no budget, or set disabled to refuse every request")]
    NoMoney {
        /// The name of the setting.
        setting: &'static str,
    },
    /// Answers that would be kept for too long.
    #[error("cache_ttl is {actual} seconds; at most {LONGEST_CACHE_TTL}")]
    CacheTtlTooLong {
        /// The time in the setting, in seconds.
        actual: u64,
    },
    /// A daily budget above the monthly budget.
    #[error(
        "daily_{what} is {daily}, above monthly_{what} {monthly}, which would bind first; \
         lower it or leave it out"
    )]
    DailyAboveMonthly {
        /// The suffix of the settings' names: the unit of the budget.
        what: &'static str,
        /// The daily budget.
        daily: String,
        /// The monthly budget.
        monthly: String,
    },
    /// An invalid name in a list of names.
    #[error(
        "{setting} has {actual:?}; a name there has 1 to {NAME_LENGTH} letters, digits, \
         '.', '_', '-', ':' and '/'"
    )]
    Name {
        /// The name of the setting.
        setting: &'static str,
        /// The text.
        actual: String,
    },
    /// A list with too many names.
    #[error("{setting} has {actual} names; at most {NAMES_AT_MOST}")]
    TooManyNames {
        /// The name of the setting.
        setting: &'static str,
        /// The length of the list.
        actual: usize,
    },
}

impl Tenant {
    /// Returns the tenant unchanged if all of its limits can take effect.
    ///
    /// # Errors
    ///
    /// [`InvalidTenant`], with the setting that violates a rule, its value and the rule.
    pub fn checked(self) -> Result<Self, InvalidTenant> {
        match fault_of(&self) {
            None => Ok(self),
            Some(fault) => Err(InvalidTenant { name: self.name, fault }),
        }
    }
}

/// The first rule that a setting of the tenant breaks.
fn fault_of(tenant: &Tenant) -> Option<SettingFault> {
    if let Some(cap) = tenant.max_pixels.filter(|cap| *cap < LOWEST_CAP) {
        return Some(SettingFault::CapTooLow { actual: cap });
    }
    if tenant.cache_ttl > LONGEST_CACHE_TTL {
        return Some(SettingFault::CacheTtlTooLong { actual: tenant.cache_ttl });
    }
    of_names("models", &tenant.models)
        .or_else(|| of_names("regions", &tenant.regions))
        .or_else(|| of_numbers(tenant))
        .or_else(|| of_amounts(tenant))
        .or_else(|| daily_above_monthly("tokens", tenant.daily_tokens, tenant.monthly_tokens))
        .or_else(|| daily_above_monthly("cost", tenant.daily_cost, tenant.monthly_cost))
}

fn of_names(setting: &'static str, names: &[String]) -> Option<SettingFault> {
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        return Some(SettingFault::Name { setting, actual: name.clone() });
    }
    let actual = names.len();
    (actual > NAMES_AT_MOST).then_some(SettingFault::TooManyNames { setting, actual })
}

fn of_numbers(tenant: &Tenant) -> Option<SettingFault> {
    [
        ("max_pixels", tenant.max_pixels.map(Pixels::get)),
        ("max_tokens", tenant.max_tokens.map(NonZeroU64::get)),
        ("rpm", tenant.requests_per_minute.map(NonZeroU64::get)),
        ("tpm", tenant.tokens_per_minute.map(NonZeroU64::get)),
        ("concurrency", tenant.concurrency.map(NonZeroU64::get)),
        ("daily_tokens", tenant.daily_tokens.map(NonZeroU64::get)),
        ("monthly_tokens", tenant.monthly_tokens.map(NonZeroU64::get)),
    ]
    .into_iter()
    .find_map(|(setting, value)| {
        let actual = value.filter(|value| *value > LARGEST_LIMIT)?;
        Some(SettingFault::TooLarge { setting, actual })
    })
}

fn of_amounts(tenant: &Tenant) -> Option<SettingFault> {
    [("daily_cost", tenant.daily_cost), ("monthly_cost", tenant.monthly_cost)]
        .into_iter()
        .filter_map(|(setting, value)| Some((setting, value?)))
        .find_map(|(setting, actual)| match actual {
            Money::ZERO => Some(SettingFault::NoMoney { setting }),
            actual if actual > LARGEST_COST => Some(SettingFault::TooMuchMoney { setting, actual }),
            _ => None,
        })
}

fn daily_above_monthly<T: PartialOrd + fmt::Display>(
    what: &'static str,
    daily: Option<T>,
    monthly: Option<T>,
) -> Option<SettingFault> {
    let (daily, monthly) = (daily?, monthly?);
    (daily > monthly).then(|| SettingFault::DailyAboveMonthly {
        what,
        daily: daily.to_string(),
        monthly: monthly.to_string(),
    })
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    (1..=NAME_LENGTH).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Tenant {
        Tenant::new("acme".parse().unwrap())
    }

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn answers_are_kept_for_a_day_at_most() {
        let with_ttl = |cache_ttl| Tenant { cache_ttl, ..acme() }.checked();
        assert!(with_ttl(86_400).is_ok());
        assert_eq!(
            with_ttl(86_401).unwrap_err().fault,
            SettingFault::CacheTtlTooLong { actual: 86_401 }
        );
    }

    #[test]
    fn a_cap_that_a_models_floor_would_override_is_refused() {
        let with_cap =
            |pixels| Tenant { max_pixels: Some(Pixels::new(pixels)), ..acme() }.checked();
        let refusal = with_cap(3135).unwrap_err().to_string();
        assert!(refusal.contains("acme") && refusal.contains("3135") && refusal.contains("3136"));
        assert!(with_cap(3136).is_ok());
    }

    #[test]
    fn a_limit_that_no_database_holds_is_refused_by_name() {
        let refusal = Tenant { concurrency: NonZeroU64::new(1 << 63), ..acme() }.checked();
        let fault = refusal.unwrap_err().fault;
        assert_eq!(fault, SettingFault::TooLarge { setting: "concurrency", actual: 1 << 63 });
    }

    #[test]
    fn a_list_with_a_text_that_names_nothing_is_refused_by_name() {
        for wrong in ["", "a,b", "a b", "\n"] {
            let names = vec!["a".to_owned(), wrong.to_owned()];
            let models = Tenant { models: names.clone(), ..acme() }.checked().unwrap_err();
            assert!(models.to_string().contains("models has"), "{models}");
            let regions = Tenant { regions: names, ..acme() }.checked().unwrap_err();
            assert!(regions.to_string().contains("regions has"), "{regions}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_to_be_meant_is_refused_by_name() {
        let regions = |count| Tenant { regions: vec!["a".to_owned(); count], ..acme() }.checked();
        assert!(regions(100).is_ok());
        let refusal = regions(101).unwrap_err().to_string();
        assert!(refusal.ends_with("regions has 101 names; at most 100"), "{refusal}");
    }

    #[test]
    fn every_setting_holds_the_largest_that_a_database_holds_and_not_one_more() {
        let most = 1_u64 << 63;
        let tenant = |limit: u64| {
            let (number, amount) = (NonZeroU64::new(limit), Some(Money::from_nanos(limit)));
            [
                ("max_tokens", Tenant { max_tokens: number, ..acme() }),
                ("daily_tokens", Tenant { daily_tokens: number, ..acme() }),
                ("monthly_tokens", Tenant { monthly_tokens: number, ..acme() }),
                ("daily_cost", Tenant { daily_cost: amount, ..acme() }),
                ("monthly_cost", Tenant { monthly_cost: amount, ..acme() }),
            ]
        };
        for (setting, tenant) in tenant(most - 1) {
            assert!(tenant.checked().is_ok(), "{setting}");
        }
        for (setting, tenant) in tenant(most) {
            let refusal = tenant.checked().unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("tenant acme: {setting} is 922")), "{refusal}");
        }
    }

    #[test]
    fn a_budget_of_no_money_is_refused_by_name() {
        let refusal = Tenant { monthly_cost: Some(money("0.00")), ..acme() }.checked().unwrap_err();
        assert_eq!(refusal.fault, SettingFault::NoMoney { setting: "monthly_cost" });
        assert!(Tenant { monthly_cost: Some(money("0.000000001")), ..acme() }.checked().is_ok());
    }

    #[test]
    fn a_daily_budget_that_the_monthly_one_undercuts_is_refused_by_name() {
        let tokens = |daily, monthly| {
            let (daily_tokens, monthly_tokens) = (NonZeroU64::new(daily), NonZeroU64::new(monthly));
            Tenant { daily_tokens, monthly_tokens, ..acme() }.checked()
        };
        let cost = |daily, monthly| {
            let (daily_cost, monthly_cost) = (Some(money(daily)), Some(money(monthly)));
            Tenant { daily_cost, monthly_cost, ..acme() }.checked()
        };
        assert!(tokens(5, 5).is_ok() && tokens(5, 6).is_ok() && cost("1.5", "1.50").is_ok());
        let refusal = tokens(6, 5).unwrap_err().to_string();
        assert!(refusal.contains("daily_tokens is 6, above monthly_tokens 5"), "{refusal}");
        let refusal = cost("1.6", "1.5").unwrap_err().to_string();
        assert!(refusal.contains("daily_cost is 1.6, above monthly_cost 1.5"), "{refusal}");
    }
}
