//! A tenant: an account with its limits.
//!
//! Spend is booked on the tenant, and its keys may change. All settings except the name are optional, and a missing one
//! means no limit, so `tenant create NAME` is enough to start. The configuration file and the JSON output of the
//! command line use the same names for the settings.

pub mod change;
pub mod rules;

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::units::{Money, Pixels, Share};

/// The name of a tenant: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, the first a letter or digit.
///
/// The alphabet is small because the name is used in metric labels, in environment variables and in file sections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

/// The metric label for requests without a tenant, and for tenants without their own series.
const RESERVED_NAMES: [&str; 2] = ["none", "other"];

/// The maximum number of characters in a tenant's name.
const NAME_LENGTH: usize = 64;

impl TenantName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not a valid name of a tenant.
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

/// The handling of a request for more pixels than the tenant's cap.
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

/// The handling of a failed call that may have been billed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownBill {
    /// The call is repeated once. Both attempts count at their upper bound until a bill is known.
    #[default]
    Repeat,
    /// The request fails. The call counts once.
    Fail,
}

impl UnknownBill {
    /// The word in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Fail => "fail",
        }
    }
}

/// A word that is neither `repeat` nor `fail`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown_bill is \"repeat\" or \"fail\", not {0:?}")]
pub struct InvalidUnknownBill(String);

impl std::str::FromStr for UnknownBill {
    type Err = InvalidUnknownBill;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "repeat" => Ok(Self::Repeat),
            "fail" => Ok(Self::Fail),
            other => Err(InvalidUnknownBill(other.to_owned())),
        }
    }
}

/// Whether PDF pages are answered from their own text, which costs no tokens, or from their image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PdfText {
    /// From the image.
    #[default]
    Off,
    /// From their own text if it is sound, else from the image.
    Prefer,
}

impl PdfText {
    /// The word in settings and in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Prefer => "prefer",
        }
    }
}

/// A word that is neither `off` nor `prefer`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pdf_text is \"off\" or \"prefer\", not {0:?}")]
pub struct InvalidPdfText(String);

impl std::str::FromStr for PdfText {
    type Err = InvalidPdfText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "prefer" => Ok(Self::Prefer),
            other => Err(InvalidPdfText(other.to_owned())),
        }
    }
}

/// An account with its limits.
#[expect(clippy::struct_excessive_bools, reason = "settings that do not depend on each other")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// The name of the account.
    pub name: TenantName,
    /// The maximum number of pixels of one image. `None` means the model's own limit.
    #[serde(default)]
    pub max_pixels: Option<Pixels>,
    /// The handling of an image above the cap.
    #[serde(default)]
    pub on_exceed: OnExceed,
    /// The maximum number of output tokens of one answer. The model's own limit also applies.
    #[serde(default)]
    pub max_tokens: Option<NonZeroU64>,
    /// Requests per minute.
    #[serde(default, rename = "rpm")]
    pub requests_per_minute: Option<NonZeroU64>,
    /// Tokens per minute.
    #[serde(default, rename = "tpm")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Concurrent requests.
    #[serde(default)]
    pub concurrency: Option<NonZeroU64>,
    /// Tokens per day.
    #[serde(default)]
    pub daily_tokens: Option<NonZeroU64>,
    /// Tokens per month.
    #[serde(default)]
    pub monthly_tokens: Option<NonZeroU64>,
    /// Money per day, above zero. The limit applies to each currency of the price list separately.
    #[serde(default)]
    pub daily_cost: Option<Money>,
    /// Money per month, above zero, in each currency.
    #[serde(default)]
    pub monthly_cost: Option<Money>,
    /// The allowed models. All models are allowed if this is empty.
    #[serde(default)]
    pub models: Vec<String>,
    /// The regions to which requests may be sent. All regions are allowed if this is empty.
    #[serde(default)]
    pub regions: Vec<String>,
    /// Whether all of the tenant's keys are refused.
    #[serde(default)]
    pub disabled: bool,
    /// Whether the tenant is defined in the configuration and not in the database.
    #[serde(skip)]
    pub of_file: bool,
    /// The handling of a failed call that may have been billed.
    #[serde(default)]
    pub unknown_bill: UnknownBill,
    /// Whether PDF pages are answered from their own text, if a request does not say.
    #[serde(default)]
    pub pdf_text: PdfText,
    /// Whether the gateway chooses the pixels of a page, if a request does not say: as `max_pixels=auto`.
    #[serde(default)]
    pub auto_pixels: bool,
    /// The share of the pages with chosen pixels that are read a second time at the cap, to compare the two texts.
    #[serde(default)]
    pub auto_audit: Share,
    /// The agreement of the two texts that is kept: below it, the pixels that are chosen rise.
    #[serde(default = "default_auto_aim")]
    pub auto_aim: Share,
    /// Whether a page with chosen pixels whose answer is in doubt is read again at the cap.
    #[serde(default)]
    pub escalate: bool,
    /// How long an answer is kept for equal requests, in seconds. Zero keeps none.
    #[serde(default)]
    pub cache_ttl: u64,
}

/// The default of [`Tenant::auto_aim`]. Readings of one page at two sizes differ where both are equally right: those of
/// PP-OCRv6 agree by 0.97 on receipts (docs/adr/0024-chosen-pixels.md). An aim above that would raise the pixels for
/// ever.
pub const DEFAULT_AUTO_AIM: Share = Share::from_millionths(950_000).expect("below one million");

const fn default_auto_aim() -> Share {
    DEFAULT_AUTO_AIM
}

impl Tenant {
    /// A tenant without limits.
    pub const fn new(name: TenantName) -> Self {
        Self {
            name,
            max_pixels: None,
            on_exceed: OnExceed::Clamp,
            max_tokens: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrency: None,
            daily_tokens: None,
            monthly_tokens: None,
            daily_cost: None,
            monthly_cost: None,
            models: Vec::new(),
            regions: Vec::new(),
            disabled: false,
            of_file: false,
            unknown_bill: UnknownBill::Repeat,
            pdf_text: PdfText::Off,
            auto_pixels: false,
            auto_audit: Share::NONE,
            auto_aim: DEFAULT_AUTO_AIM,
            escalate: false,
            cache_ttl: 0,
        }
    }

    /// Whether the tenant may use `model`.
    pub fn allows(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Tenant {
        Tenant::new("acme".parse().unwrap())
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
    fn an_empty_model_list_allows_all_models() {
        let one = Tenant { models: vec!["qwen-vl-ocr".into()], ..acme() };
        assert!(acme().allows("anything"));
        assert!(one.allows("qwen-vl-ocr") && !one.allows("qwen-vl-ocr-latest"));
    }

    #[test]
    fn settings_are_written_with_the_names_of_the_contract() {
        let json = r#"{"name":"acme","max_pixels":786432,"on_exceed":"reject","max_tokens":900,
            "rpm":60,"tpm":100000,"concurrency":4,"daily_tokens":1000000,"monthly_tokens":9000000,
            "daily_cost":"12.5","monthly_cost":"100","models":["qwen-vl-ocr"],
            "regions":["beijing"],"disabled":true,"unknown_bill":"fail","pdf_text":"prefer",
            "auto_pixels":true,"auto_audit":0.01,"auto_aim":0.95,"escalate":true,"cache_ttl":600}"#;
        let tenant: Tenant = serde_json::from_str(json).unwrap();
        let written = serde_json::to_value(&tenant).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(json).unwrap());
    }

    #[test]
    fn a_limit_of_zero_and_an_unknown_setting_are_refused() {
        for wrong in [
            r#"{"name":"a","rpm":0}"#,
            r#"{"name":"a","daily_tokens":0}"#,
            r#"{"name":"a","requests_per_minute":1}"#,
        ] {
            assert!(serde_json::from_str::<Tenant>(wrong).is_err(), "{wrong} was accepted");
        }
    }
}
