//! Changes of a tenant's settings, one by one.

use std::num::NonZeroU64;

use serde::{Deserialize, Deserializer};

use super::rules::InvalidTenant;
use super::{DEFAULT_AUTO_AIM, OnExceed, PdfText, Tenant, UnknownBill};
use crate::units::{Money, Pixels, Share};

/// The change of one setting.
///
/// In JSON these are an absent member, `null` and a value, as in a merge patch (RFC 7396).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SettingChange<T> {
    /// The setting is unchanged.
    #[default]
    Keep,
    /// The setting is reset to its default.
    Clear,
    /// The setting gets this value.
    Set(T),
}

impl<T> SettingChange<T> {
    fn apply(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

/// Reads `null` or a value; `#[serde(default)]` handles an absent member.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for SettingChange<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

/// A change of some of a tenant's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantChange {
    /// The maximum number of pixels of one image.
    pub max_pixels: SettingChange<Pixels>,
    /// The handling of an image above the cap. The default is to clamp.
    pub on_exceed: SettingChange<OnExceed>,
    /// The maximum number of output tokens of one answer.
    pub max_tokens: SettingChange<NonZeroU64>,
    /// Requests per minute.
    #[serde(rename = "rpm")]
    pub requests_per_minute: SettingChange<NonZeroU64>,
    /// Tokens per minute.
    #[serde(rename = "tpm")]
    pub tokens_per_minute: SettingChange<NonZeroU64>,
    /// Concurrent requests.
    pub concurrency: SettingChange<NonZeroU64>,
    /// Tokens per day.
    pub daily_tokens: SettingChange<NonZeroU64>,
    /// Tokens per month.
    pub monthly_tokens: SettingChange<NonZeroU64>,
    /// Money per day, in each currency.
    pub daily_cost: SettingChange<Money>,
    /// Money per month, in each currency.
    pub monthly_cost: SettingChange<Money>,
    /// The allowed models.
    pub models: SettingChange<Vec<String>>,
    /// The allowed regions.
    pub regions: SettingChange<Vec<String>>,
    /// Whether all of the tenant's keys are refused.
    pub disabled: SettingChange<bool>,
    /// The handling of a failed call that may have been billed. The default is to repeat it.
    pub unknown_bill: SettingChange<UnknownBill>,
    /// Whether PDF pages are answered from their own text; cleared, they are not.
    pub pdf_text: SettingChange<PdfText>,
    /// Whether the gateway chooses the pixels of a page.
    pub auto_pixels: SettingChange<bool>,
    /// The share of the pages with chosen pixels that are read a second time.
    pub auto_audit: SettingChange<Share>,
    /// The agreement of the two texts that is kept.
    pub auto_aim: SettingChange<Share>,
    /// Whether a page with chosen pixels whose answer is in doubt is read again.
    pub escalate: SettingChange<bool>,
    /// How long an answer is kept for equal requests, in seconds.
    pub cache_ttl: SettingChange<u64>,
}

impl TenantChange {
    /// Applies the change to a tenant.
    ///
    /// # Errors
    ///
    /// [`InvalidTenant`], as [`Tenant::checked`].
    pub fn apply(self, tenant: Tenant) -> Result<Tenant, InvalidTenant> {
        Tenant {
            name: tenant.name,
            max_pixels: self.max_pixels.apply(tenant.max_pixels),
            on_exceed: self.on_exceed.apply(Some(tenant.on_exceed)).unwrap_or_default(),
            max_tokens: self.max_tokens.apply(tenant.max_tokens),
            requests_per_minute: self.requests_per_minute.apply(tenant.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.apply(tenant.tokens_per_minute),
            concurrency: self.concurrency.apply(tenant.concurrency),
            daily_tokens: self.daily_tokens.apply(tenant.daily_tokens),
            monthly_tokens: self.monthly_tokens.apply(tenant.monthly_tokens),
            daily_cost: self.daily_cost.apply(tenant.daily_cost),
            monthly_cost: self.monthly_cost.apply(tenant.monthly_cost),
            models: self.models.apply(Some(tenant.models)).unwrap_or_default(),
            regions: self.regions.apply(Some(tenant.regions)).unwrap_or_default(),
            disabled: self.disabled.apply(Some(tenant.disabled)).unwrap_or_default(),
            of_file: tenant.of_file,
            unknown_bill: self.unknown_bill.apply(Some(tenant.unknown_bill)).unwrap_or_default(),
            pdf_text: self.pdf_text.apply(Some(tenant.pdf_text)).unwrap_or_default(),
            auto_pixels: self.auto_pixels.apply(Some(tenant.auto_pixels)).unwrap_or_default(),
            auto_audit: self.auto_audit.apply(Some(tenant.auto_audit)).unwrap_or_default(),
            auto_aim: self.auto_aim.apply(Some(tenant.auto_aim)).unwrap_or(DEFAULT_AUTO_AIM),
            escalate: self.escalate.apply(Some(tenant.escalate)).unwrap_or_default(),
            cache_ttl: self.cache_ttl.apply(Some(tenant.cache_ttl)).unwrap_or_default(),
        }
        .checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Tenant {
        Tenant::new("acme".parse().unwrap())
    }

    fn change(json: &str) -> TenantChange {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_change_touches_only_what_it_names() {
        let before = change(r#"{"rpm":60,"tpm":9,"models":["a"]}"#).apply(acme()).unwrap();
        let after = change(r#"{"rpm":null,"disabled":true}"#).apply(before.clone()).unwrap();
        let expected = Tenant { requests_per_minute: None, disabled: true, ..before };
        assert_eq!(after, expected);
    }

    #[test]
    fn a_change_to_null_opens_all_models_and_all_regions_again() {
        for list in ["models", "regions"] {
            let one = change(&format!(r#"{{"{list}":["a"]}}"#)).apply(acme()).unwrap();
            assert_ne!(one, acme());
            assert_eq!(change(&format!(r#"{{"{list}":null}}"#)).apply(one).unwrap(), acme());
        }
    }

    #[test]
    fn a_change_that_breaks_a_rule_is_refused() {
        assert!(change(r#"{"max_pixels":1}"#).apply(acme()).is_err());
        let budgeted = change(r#"{"daily_tokens":9}"#).apply(acme()).unwrap();
        assert!(change(r#"{"monthly_tokens":8}"#).apply(budgeted).is_err());
    }

    #[test]
    fn every_budget_can_be_set_and_cleared() {
        let all = r#"{"max_tokens":1,"daily_tokens":2,"monthly_tokens":3,"daily_cost":"0.5",
            "monthly_cost":"12.50"}"#;
        let set = change(all).apply(acme()).unwrap();
        assert_eq!((set.max_tokens, set.daily_tokens), (NonZeroU64::new(1), NonZeroU64::new(2)));
        assert_eq!(set.monthly_tokens, NonZeroU64::new(3));
        assert_eq!(set.daily_cost, Some(Money::from_nanos(500_000_000)));
        assert_eq!(set.monthly_cost, Some(Money::from_nanos(12_500_000_000)));
        let none = r#"{"max_tokens":null,"daily_tokens":null,"monthly_tokens":null,
            "daily_cost":null,"monthly_cost":null}"#;
        assert_eq!(change(none).apply(set).unwrap(), acme());
    }
}
