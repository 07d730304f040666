//! What is known of each model: geometry, limits and prices.
//!
//! All of it is configuration (`[models.NAME]`, with the vendor's figures as defaults), because the
//! vendor changes prices and limits faster than this service is released. A model that is not in the
//! catalog, or has no price in the region that serves it, is refused: what cannot be priced cannot be
//! held to a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::units::{Currency, Money, Pixels, PricePerMillion, Tokens, Usage};

/// The settings of one model: section `[models.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// Side in pixels of the square that costs one token: 32 or 28.
    pub cell: u32,
    /// The least `min_pixels` that the model takes, and its default.
    pub min_pixels: Pixels,
    /// What the model takes for `max_pixels` when a request names none.
    pub default_max_pixels: Pixels,
    /// The most that `max_pixels` may be.
    pub largest_max_pixels: Pixels,
    /// The most tokens that one answer may have. Always sent, so that the output is bounded.
    pub max_tokens: Tokens,
    /// The most tokens that may go in.
    pub max_input_tokens: Tokens,
    /// A bound of the tokens that the chat template and the system line add to a prompt.
    pub template_tokens: Tokens,
    /// Whether the model knows the built-in OCR tasks.
    pub builtin_tasks: bool,
    /// The account's limit of requests a minute for this model.
    pub rpm: u64,
    /// The account's limit of tokens a minute for this model.
    pub tpm: u64,
    /// Prices by region.
    #[serde(default)]
    pub prices: BTreeMap<String, PriceSettings>,
}

/// The price of a model in one region: section `[models.NAME.prices.REGION]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSettings {
    /// Price of a million tokens that go in.
    pub input: PricePerMillion,
    /// Price of a million tokens that come out.
    pub output: PricePerMillion,
    /// Currency of both.
    pub currency: Currency,
    /// The page that the price was read on.
    pub source: String,
    /// The day on which it was read there.
    pub checked: String,
}

/// What one token costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    input: Money,
    output: Money,
    /// Currency of every cost made from this price.
    pub currency: Currency,
}

impl Price {
    /// What `usage` costs, to the nano.
    pub const fn of(&self, usage: &Usage) -> Money {
        self.input.times(usage.input()).saturating_add(self.output.times(usage.output))
    }
}

/// One model as one region sells it.
#[derive(Debug, Clone)]
pub struct Model {
    /// The name that DashScope knows it by.
    pub name: String,
    /// Its figures.
    pub figures: ModelSettings,
    /// Its price where it is called.
    pub price: Price,
}

impl Model {
    /// Whether whoever asked may be served by the model in `region`.
    pub fn is_sold_in(&self, _region: &str) -> bool {
        true
    }
}

#[cfg(test)]
impl Model {
    /// The figures of `qwen-vl-ocr-2025-11-20` under another name, for nothing.
    pub(crate) fn sample() -> Arc<Self> {
        let figures = ModelSettings {
            cell: 32,
            min_pixels: Pixels::new(3_072),
            default_max_pixels: Pixels::new(8_388_608),
            largest_max_pixels: Pixels::new(30_720_000),
            max_tokens: Tokens::new(8_192),
            max_input_tokens: Tokens::new(30_000),
            template_tokens: Tokens::new(32),
            builtin_tasks: true,
            rpm: 600,
            tpm: 6_000_000,
            prices: BTreeMap::new(),
        };
        let price = Price { input: Money::ZERO, output: Money::ZERO, currency: Currency::Cny };
        Arc::new(Self { name: "sample".to_owned(), figures, price })
    }
}

/// The models that can be called, each with its price.
#[derive(Debug, Clone)]
pub struct Catalog {
    models: BTreeMap<String, Arc<Model>>,
    default: Arc<Model>,
}

/// A catalog that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// A figure contradicts another.
    #[error("models.{model}.{key}: {why}")]
    Figure {
        /// The model.
        model: String,
        /// The key within it.
        key: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
    /// The default model is not listed, or has no price in the region.
    #[error(
        "upstream.model: {model:?} has no entry in [models] with a price for region {region:?}; models that have one: {priced}"
    )]
    DefaultModel {
        /// The model asked for.
        model: String,
        /// The region that serves it.
        region: String,
        /// The models that could be used instead.
        priced: String,
    },
}

#[cfg(test)]
impl Catalog {
    /// A catalog of [`Model::sample`] alone.
    pub(crate) fn sample() -> Self {
        let model = Model::sample();
        Self { models: [(model.name.clone(), Arc::clone(&model))].into(), default: model }
    }
}

impl Catalog {
    /// The models of `settings` that have a price in `region`, with `default` among them.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when figures contradict each other or the default model cannot be used.
    pub fn new(
        settings: &BTreeMap<String, ModelSettings>,
        region: &str,
        default: &str,
    ) -> Result<Self, CatalogError> {
        let mut models = BTreeMap::new();
        for (name, figures) in settings {
            check_figures(name, figures)?;
            let Some(price) = figures.prices.get(region) else { continue };
            let price = Price {
                input: price.input.per_token(),
                output: price.output.per_token(),
                currency: price.currency,
            };
            let model = Model { name: name.clone(), figures: figures.clone(), price };
            models.insert(name.clone(), Arc::new(model));
        }
        let Some(default) = models.get(default).cloned() else {
            return Err(CatalogError::DefaultModel {
                model: default.to_owned(),
                region: region.to_owned(),
                priced: models.keys().cloned().collect::<Vec<_>>().join(", "),
            });
        };
        Ok(Self { models, default })
    }

    /// The model of this name; the default where none is named.
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<Model>> {
        name.map_or(Some(&self.default), |name| self.models.get(name))
    }

    /// The currencies of their prices; one as often as models have it.
    pub fn currencies(&self) -> impl Iterator<Item = Currency> {
        self.models.values().map(|model| model.price.currency)
    }

    /// The names of all models, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }
}

fn check_figures(model: &str, figures: &ModelSettings) -> Result<(), CatalogError> {
    let wrong = |key, why| Err(CatalogError::Figure { model: model.to_owned(), key, why });
    if figures.cell == 0 || figures.cell > 1024 {
        return wrong("cell", format!("{} is not a side between 1 and 1024 pixels", figures.cell));
    }
    if figures.min_pixels > figures.default_max_pixels {
        let why = format!("{} is above default_max_pixels", figures.min_pixels);
        return wrong("min_pixels", why);
    }
    if figures.default_max_pixels > figures.largest_max_pixels {
        let why = format!("{} is above largest_max_pixels", figures.default_max_pixels);
        return wrong("default_max_pixels", why);
    }
    if figures.max_tokens == Tokens::ZERO {
        return wrong("max_tokens", "0 would leave no room for an answer".to_owned());
    }
    for (key, rate) in [("rpm", figures.rpm), ("tpm", figures.tpm)] {
        if rate == 0 {
            return wrong(key, "must be above 0".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(prices: &str) -> ModelSettings {
        let text = format!(
            "cell = 32\nmin_pixels = 3072\ndefault_max_pixels = 8388608\nlargest_max_pixels = 30720000\n\
             max_tokens = 8192\nmax_input_tokens = 30000\ntemplate_tokens = 24\nbuiltin_tasks = true\n\
             rpm = 600\ntpm = 6000000\n{prices}"
        );
        let parsed = config::Config::builder()
            .add_source(config::File::from_str(&text, config::FileFormat::Toml))
            .build();
        parsed.unwrap().try_deserialize().unwrap()
    }

    fn beijing() -> ModelSettings {
        figures(
            "[prices.beijing]\ninput = \"0.3\"\noutput = \"0.5\"\ncurrency = \"CNY\"\nsource = \"a page\"\nchecked = \"2026-02-12\"",
        )
    }

    #[test]
    fn the_documented_example_costs_what_the_documentation_says() {
        let models = BTreeMap::from([("m".to_owned(), beijing())]);
        let catalog = Catalog::new(&models, "beijing", "m").unwrap();
        let usage =
            Usage { image: Tokens::new(728), text: Tokens::new(24), output: Tokens::new(432) };
        assert_eq!(catalog.find(None).unwrap().price.of(&usage).to_string(), "0.0004416");
    }

    #[test]
    fn a_model_without_a_price_in_the_region_is_not_offered() {
        let models =
            BTreeMap::from([("m".to_owned(), beijing()), ("free".to_owned(), figures(""))]);
        let catalog = Catalog::new(&models, "beijing", "m").unwrap();
        assert!(catalog.find(Some("free")).is_none());
    }

    #[test]
    fn an_unpriced_default_model_is_an_error_that_names_the_key() {
        let models = BTreeMap::from([("m".to_owned(), beijing())]);
        let error = Catalog::new(&models, "mars", "m").unwrap_err().to_string();
        assert!(error.starts_with("upstream.model"), "{error}");
    }

    #[test]
    fn figures_that_contradict_each_other_are_an_error_that_names_the_key() {
        let mut wrong = beijing();
        wrong.default_max_pixels = Pixels::new(1);
        let models = BTreeMap::from([("m".to_owned(), wrong)]);
        let error = Catalog::new(&models, "beijing", "m").unwrap_err().to_string();
        assert!(error.starts_with("models.m.min_pixels"), "{error}");
    }
}
