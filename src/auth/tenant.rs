//! A tenant: who spends, and within which limits.
//!
//! A tenant is the account; its keys come and go. All of its settings but the name are optional,
//! and an absent one means no limit, so that `tenant create NAME` is enough to start. The names of
//! the settings are those of the contract (section 4) in every place where they are written: the
//! configuration file and the command line.
//!
//! This file does not store tenants and does not enforce their limits.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Deserializer, Serialize};

use crate::units::Pixels;

/// The lowest cap that every model can keep.
///
/// DashScope enlarges an image below a model's `min_pixels`, so a cap under it would not bind. The
/// floor is 4 cells of 28×28 = 3136 for the older models and 3 cells of 32×32 = 3072 for the newer
/// ones ("Text extraction (Qwen-OCR)"); a tenant may use both, so the higher one counts.
pub const LOWEST_CAP: Pixels = Pixels::new(4 * 28 * 28);

/// The largest limit that both databases can hold: their integers are signed.
const LARGEST_LIMIT: u64 = i64::MAX.unsigned_abs();

/// Models that a tenant may be limited to at most; the vendor sells seven for this task.
const MODELS_AT_MOST: usize = 100;

/// Characters of a model's name at most.
const MODEL_NAME_LENGTH: usize = 128;

/// The name of a tenant: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, the first a letter or digit.
///
/// So narrow because it stands in metric labels, in environment variables and in file sections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

/// What metrics say where there is no tenant, or one of the many without series of their own.
const RESERVED_NAMES: [&str; 2] = ["none", "other"];

/// Characters that a tenant's name may have at most.
const NAME_LENGTH: usize = 64;

impl TenantName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot name a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name a tenant: write 1 to {NAME_LENGTH} of a-z, 0-9, '.', '_' and '-', \
     the first a letter or digit, but not \"none\" or \"other\""
)]
pub struct InvalidTenantName(String);

impl TryFrom<String> for TenantName {
    type Error = InvalidTenantName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let allowed = |byte: u8| alphanumeric(byte) || b"._-".contains(&byte);
        let starts_well = text.bytes().next().is_some_and(alphanumeric);
        let free = !RESERVED_NAMES.contains(&text.as_str());
        if starts_well && free && text.len() <= NAME_LENGTH && text.bytes().all(allowed) {
            return Ok(Self(text));
        }
        Err(InvalidTenantName(text.chars().take(NAME_LENGTH).collect()))
    }
}

impl std::str::FromStr for TenantName {
    type Err = InvalidTenantName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.to_owned().try_into()
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What happens to a request that asks for more pixels than its tenant's cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExceed {
    /// The image is sent at the cap, and the answer says `capped`.
    #[default]
    Clamp,
    /// The request is refused.
    Reject,
}

impl OnExceed {
    /// The word in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clamp => "clamp",
            Self::Reject => "reject",
        }
    }
}

/// A word that is neither `clamp` nor `reject`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("on_exceed is \"clamp\" or \"reject\", not {0:?}")]
pub struct InvalidOnExceed(String);

impl std::str::FromStr for OnExceed {
    type Err = InvalidOnExceed;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "clamp" => Ok(Self::Clamp),
            "reject" => Ok(Self::Reject),
            other => Err(InvalidOnExceed(other.to_owned())),
        }
    }
}

/// Who spends, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// The account that everything is charged to.
    pub name: TenantName,
    /// The cap on one image; no other than the model's own, if `None`.
    #[serde(default)]
    pub max_pixels: Option<Pixels>,
    /// What happens above the cap.
    #[serde(default)]
    pub on_exceed: OnExceed,
    /// Requests in a minute.
    #[serde(default, rename = "rpm")]
    pub requests_per_minute: Option<NonZeroU64>,
    /// Tokens in a minute.
    #[serde(default, rename = "tpm")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests in flight at the same time.
    #[serde(default)]
    pub concurrency: Option<NonZeroU64>,
    /// The models that may be asked for; all, if empty.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether all of the tenant's keys are refused.
    #[serde(default)]
    pub disabled: bool,
}

impl Tenant {
    /// A tenant without limits.
    pub const fn new(name: TenantName) -> Self {
        Self {
            name,
            max_pixels: None,
            on_exceed: OnExceed::Clamp,
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrency: None,
            models: Vec::new(),
            disabled: false,
        }
    }

    /// The same tenant, if every one of its limits can bind.
    ///
    /// # Errors
    ///
    /// [`InvalidTenant`] names the setting that cannot, its value and the rule.
    pub fn checked(self) -> Result<Self, InvalidTenant> {
        match self.fault() {
            None => Ok(self),
            Some(fault) => Err(InvalidTenant { name: self.name, fault }),
        }
    }

    /// Whether the tenant may ask for `model`.
    pub fn allows(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model)
    }

    fn fault(&self) -> Option<SettingFault> {
        if let Some(cap) = self.max_pixels.filter(|cap| *cap < LOWEST_CAP) {
            return Some(SettingFault::CapTooLow { actual: cap });
        }
        if let Some(model) = self.models.iter().find(|model| !is_model_name(model)) {
            return Some(SettingFault::ModelName { actual: model.clone() });
        }
        if self.models.len() > MODELS_AT_MOST {
            return Some(SettingFault::TooManyModels { actual: self.models.len() });
        }
        [
            ("max_pixels", self.max_pixels.map(Pixels::get)),
            ("rpm", self.requests_per_minute.map(NonZeroU64::get)),
            ("tpm", self.tokens_per_minute.map(NonZeroU64::get)),
            ("concurrency", self.concurrency.map(NonZeroU64::get)),
        ]
        .into_iter()
        .find_map(|(setting, value)| {
            let actual = value.filter(|value| *value > LARGEST_LIMIT)?;
            Some(SettingFault::TooLarge { setting, actual })
        })
    }
}

/// A tenant with a setting that cannot bind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tenant {name}: {fault}")]
pub struct InvalidTenant {
    /// Whose setting it is.
    pub name: TenantName,
    /// The rule that it breaks.
    pub fault: SettingFault,
}

/// The rule that a tenant's setting breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingFault {
    /// A model would enlarge the image beyond the cap.
    #[error("max_pixels is {actual}, which a model's own floor overrides; at least {LOWEST_CAP}")]
    CapTooLow {
        /// The cap that was asked for.
        actual: Pixels,
    },
    /// A number that no database column holds.
    #[error("{setting} is {actual}; at most {LARGEST_LIMIT}")]
    TooLarge {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        actual: u64,
    },
    /// A text that names no model.
    #[error(
        "models names {actual:?}; a model's name has 1 to {MODEL_NAME_LENGTH} letters, digits, \
         '.', '_', '-', ':' and '/'"
    )]
    ModelName {
        /// The name.
        actual: String,
    },
    /// A list that is too long to be meant.
    #[error("models names {actual} models; at most {MODELS_AT_MOST}")]
    TooManyModels {
        /// The length of the list.
        actual: usize,
    },
}

/// What becomes of one setting.
///
/// In JSON an absent member, `null` or a value, as in a merge patch (RFC 7396).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It goes back to no limit.
    Clear,
    /// It becomes this.
    Set(T),
}

impl<T> Change<T> {
    fn apply(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }
}

/// Reads `null` or a value; that a member is absent, `#[serde(default)]` has to tell.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}

/// A change of some of a tenant's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantChange {
    /// The cap on one image.
    pub max_pixels: Change<Pixels>,
    /// What happens above the cap; cleared, it is clamped.
    pub on_exceed: Change<OnExceed>,
    /// Requests in a minute.
    #[serde(rename = "rpm")]
    pub requests_per_minute: Change<NonZeroU64>,
    /// Tokens in a minute.
    #[serde(rename = "tpm")]
    pub tokens_per_minute: Change<NonZeroU64>,
    /// Requests in flight at the same time.
    pub concurrency: Change<NonZeroU64>,
    /// The models that may be asked for.
    pub models: Change<Vec<String>>,
    /// Whether all of the tenant's keys are refused.
    pub disabled: Change<bool>,
}

impl TenantChange {
    /// The tenant with the change made.
    ///
    /// # Errors
    ///
    /// [`InvalidTenant`], as [`Tenant::checked`].
    pub fn apply(self, tenant: Tenant) -> Result<Tenant, InvalidTenant> {
        Tenant {
            name: tenant.name,
            max_pixels: self.max_pixels.apply(tenant.max_pixels),
            on_exceed: self.on_exceed.apply(Some(tenant.on_exceed)).unwrap_or_default(),
            requests_per_minute: self.requests_per_minute.apply(tenant.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.apply(tenant.tokens_per_minute),
            concurrency: self.concurrency.apply(tenant.concurrency),
            models: self.models.apply(Some(tenant.models)).unwrap_or_default(),
            disabled: self.disabled.apply(Some(tenant.disabled)).unwrap_or_default(),
        }
        .checked()
    }
}

fn is_model_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
    (1..=MODEL_NAME_LENGTH).contains(&text.len()) && text.bytes().all(allowed)
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
    fn a_name_outside_the_rule_is_refused_with_the_rule() {
        for wrong in ["", "Acme", ".hidden", "-flag", "_x", "a b", "a/b", "é", &"a".repeat(65)] {
            let refusal = wrong.parse::<TenantName>().unwrap_err().to_string();
            assert!(refusal.contains("1 to 64 of a-z"), "{refusal}");
        }
        for right in ["a", "7", "acme.eu-1_b", &"a".repeat(64)] {
            assert_eq!(right.parse::<TenantName>().unwrap().as_str(), right);
        }
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
    fn a_model_list_with_a_text_that_names_no_model_is_refused() {
        for wrong in ["", "a,b", "a b", "\n"] {
            let tenant = Tenant { models: vec!["qwen-vl-ocr".into(), wrong.into()], ..acme() };
            assert!(tenant.checked().is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn an_empty_model_list_allows_all_models() {
        let one = Tenant { models: vec!["qwen-vl-ocr".into()], ..acme() };
        assert!(acme().allows("anything"));
        assert!(one.allows("qwen-vl-ocr") && !one.allows("qwen-vl-ocr-latest"));
    }

    #[test]
    fn settings_are_written_with_the_names_of_the_contract() {
        let json = r#"{"name":"acme","max_pixels":786432,"on_exceed":"reject","rpm":60,
            "tpm":100000,"concurrency":4,"models":["qwen-vl-ocr"],"disabled":true}"#;
        let tenant: Tenant = serde_json::from_str(json).unwrap();
        let written = serde_json::to_value(&tenant).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(json).unwrap());
    }

    #[test]
    fn a_limit_of_zero_and_an_unknown_setting_are_refused() {
        for wrong in [r#"{"name":"a","rpm":0}"#, r#"{"name":"a","requests_per_minute":1}"#] {
            assert!(serde_json::from_str::<Tenant>(wrong).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn a_change_touches_only_what_it_names() {
        let before = change(r#"{"rpm":60,"tpm":9,"models":["a"]}"#).apply(acme()).unwrap();
        let after = change(r#"{"rpm":null,"disabled":true}"#).apply(before.clone()).unwrap();
        let expected = Tenant { requests_per_minute: None, disabled: true, ..before };
        assert_eq!(after, expected);
    }

    #[test]
    fn a_change_to_null_opens_all_models_again() {
        let one = change(r#"{"models":["a"]}"#).apply(acme()).unwrap();
        assert_eq!(change(r#"{"models":null}"#).apply(one).unwrap(), acme());
    }

    #[test]
    fn a_change_that_breaks_a_rule_is_refused() {
        assert!(change(r#"{"max_pixels":1}"#).apply(acme()).is_err());
    }
}
