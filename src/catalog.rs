//! The known models, with their image geometry, limits and prices.
//!
//! All of it is configuration (`[models.NAME]`, with the vendor's figures as defaults), because the vendor changes
//! prices and limits more often than this service is released. A model that is not in the catalog, or that has no price
//! in a region whose endpoints serve it, is rejected: a budget cannot be enforced for a call without a price.
//!
//! Only this module restricts a model to the regions that a caller may use (docs/adr/0014-regions.md). The regions are
//! arguments. A [`Model`] that was looked up for a caller has offers only in those regions.

mod aliases;
mod model;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::aliases::{AliasError, MistralSettings, ModelAliases};
use self::model::Offer;
pub use self::model::{Model, Price};
pub use self::settings::{ModelSettings, PriceSettings};
use crate::label::{self, LabelFault};
use crate::units::{Currency, Tokens};

/// The properties of an endpoint that decide which models it sells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// The name of the endpoint.
    pub endpoint: String,
    /// The region of the endpoint.
    pub region: String,
    /// The models that the endpoint serves. If empty, it serves all models with a price in its region.
    pub models: Vec<String>,
    /// The models for which the endpoint has its own rates.
    pub limits: Vec<String>,
}

impl Outlet {
    /// Whether the endpoint sells `model`, given the model's figures.
    fn sells(&self, model: &str, figures: &ModelSettings) -> bool {
        let serves = self.models.is_empty() || self.models.iter().any(|served| served == model);
        serves && figures.prices.contains_key(&self.region)
    }
}

/// A model as the endpoints offer it, for any caller.
#[derive(Debug, Clone)]
pub struct Listing {
    figures: Arc<ModelSettings>,
    /// One offer for each region, in the order of the endpoints and in any currency.
    offers: Vec<Offer>,
    /// The model for callers without a restriction of regions. Nearly all callers use it, so it is built only once.
    anywhere: Arc<Model>,
}

impl Listing {
    fn of(name: &str, figures: &ModelSettings, outlets: &[Outlet]) -> Option<Self> {
        let mut offers: Vec<Offer> = Vec::new();
        for outlet in outlets.iter().filter(|outlet| outlet.sells(name, figures)) {
            let region = outlet.region.as_str();
            let Some(price) = figures.prices.get(region) else { continue };
            if offers.iter().all(|offer| &*offer.region != region) {
                offers.push(Offer { region: region.into(), price: Price::of_settings(price) });
            }
        }
        let figures = Arc::new(figures.clone());
        let anywhere = Arc::new(Model::sold_by(name, &figures, offers.iter().cloned())?);
        Some(Self { figures, offers, anywhere })
    }

    /// The name of the model at DashScope.
    pub fn name(&self) -> &str {
        &self.anywhere.name
    }

    /// The regions where the model is available, in the order of the endpoints.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.offers.iter().map(|offer| &*offer.region)
    }

    /// Returns the model restricted to these regions, or unrestricted if `regions` is empty; `None` if none of them
    /// sells it.
    ///
    /// All offers have one currency, that of the first remaining endpoint. Prices in two currencies cannot be compared,
    /// so an amount in one could not cover a call billed in the other.
    pub fn sold_in(&self, regions: &[String]) -> Option<Arc<Model>> {
        if regions.is_empty() {
            return Some(Arc::clone(&self.anywhere));
        }
        let allowed = |offer: &&Offer| regions.iter().any(|region| **region == *offer.region);
        let offers = self.offers.iter().filter(allowed).cloned();
        Model::sold_by(self.name(), &self.figures, offers).map(Arc::new)
    }
}

/// An endpoint that does not serve unrestricted callers, because its price for a model is in another currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The model.
    pub model: String,
    /// The endpoint.
    pub endpoint: String,
    /// Its region.
    pub region: String,
    /// The currency of its price.
    pub currency: Currency,
    /// The currency in which the model is sold instead.
    pub sold_in: Currency,
}

/// The available models with their prices.
#[derive(Debug, Clone)]
pub struct Catalog {
    listings: BTreeMap<String, Listing>,
    default: String,
    outlets: Vec<Outlet>,
    aliases: ModelAliases,
}

/// An invalid catalog.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// A name that would be misleading in a table or a log line.
    #[error("models.{model:?}: the name {fault}")]
    Name {
        /// The name.
        model: String,
        /// The violated rule.
        fault: LabelFault,
    },
    /// A name for Mistral's OCR API is invalid, or its model is not listed.
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// A figure contradicts another.
    #[error("models.{model}.{key}: {why}")]
    Figure {
        /// The model.
        model: String,
        /// The key in the model's section.
        key: &'static str,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// The default model is not listed, or no endpoint sells it.
    #[error(
        "upstream.model: {model:?} has no entry in [models] with a price for region {regions} that an \
         endpoint there serves; models that have one: {priced}"
    )]
    DefaultModel {
        /// The configured default model.
        model: String,
        /// The configured regions.
        regions: String,
        /// The models that could be the default instead.
        priced: String,
    },
    /// An endpoint is configured to serve a model that has no price in its region.
    #[error(
        "upstream.endpoints: {endpoint:?} is to serve {model:?}, which has no entry in [models] with a \
         price for region {region:?}; add the price, or take the model out of its models and limits"
    )]
    Unpriced {
        /// The endpoint.
        endpoint: String,
        /// The model.
        model: String,
        /// The endpoint's region.
        region: String,
    },
    /// No model has a price in an endpoint's region.
    #[error(
        "upstream.endpoints: no model has a price for region {region:?} of {endpoint:?}, so that it \
         would serve none; regions with prices: {priced}"
    )]
    Idle {
        /// The endpoint.
        endpoint: String,
        /// Its region.
        region: String,
        /// The regions with prices.
        priced: String,
    },
}

#[cfg(test)]
impl Catalog {
    /// A catalog of [`Model::sample`] alone.
    pub(crate) fn sample() -> Self {
        let anywhere = Model::sample();
        let (name, figures) = (anywhere.name.clone(), Arc::clone(&anywhere.figures));
        let listing = Listing { figures, offers: Vec::new(), anywhere };
        let listings = [(name.clone(), listing)].into();
        let aliases = ModelAliases::default();
        Self { listings, default: name, outlets: Vec::new(), aliases }
    }
}

impl Catalog {
    /// Builds a catalog from the models of `settings` that `outlets` sell. `default` must be one of them.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] if figures contradict each other, if the default model is unavailable, or if an endpoint would
    /// serve no model or not every model that it names.
    pub fn new(
        settings: &BTreeMap<String, ModelSettings>,
        outlets: Vec<Outlet>,
        default: &str,
    ) -> Result<Self, CatalogError> {
        let mut listings = BTreeMap::new();
        for (name, figures) in settings {
            label::check(name)
                .map_err(|fault| CatalogError::Name { model: name.clone(), fault })?;
            check_figures(name, figures)?;
            let Some(listing) = Listing::of(name, figures, &outlets) else { continue };
            listings.insert(name.clone(), listing);
        }
        if !listings.contains_key(default) {
            let regions: BTreeSet<_> =
                outlets.iter().map(|outlet| format!("{:?}", outlet.region)).collect();
            return Err(CatalogError::DefaultModel {
                model: default.to_owned(),
                regions: joined(regions.iter().map(String::as_str)),
                priced: joined(listings.keys().map(String::as_str)),
            });
        }
        for outlet in &outlets {
            check_outlet(outlet, settings)?;
        }
        let aliases = ModelAliases::default();
        Ok(Self { listings, default: default.to_owned(), outlets, aliases })
    }

    /// The same catalog with the other names of its models.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Alias`].
    pub fn with_aliases(self, settings: &MistralSettings) -> Result<Self, CatalogError> {
        let aliases = ModelAliases::new(settings, &self.names().collect())?;
        Ok(Self { aliases, ..self })
    }

    /// Other names of the models.
    pub const fn aliases(&self) -> &ModelAliases {
        &self.aliases
    }

    /// Finds a model by name, or the default model if `name` is `None`.
    pub fn find(&self, name: Option<&str>) -> Option<&Listing> {
        self.listings.get(name.unwrap_or(&self.default))
    }

    /// The models that are sold in these regions, or in any region if `regions` is empty, in name order.
    pub fn sold_in<'a>(&'a self, regions: &'a [String]) -> impl Iterator<Item = Arc<Model>> + 'a {
        self.listings.values().filter_map(|listing| listing.sold_in(regions))
    }

    /// The names of all models, in sorted order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listings.keys().map(String::as_str)
    }

    /// The regions of the endpoints, in sorted order.
    pub fn regions(&self) -> BTreeSet<&str> {
        self.outlets.iter().map(|outlet| outlet.region.as_str()).collect()
    }

    /// The endpoints that do not serve a model to unrestricted callers, because their price is in another currency.
    pub fn left_out(&self) -> impl Iterator<Item = LeftOut> + '_ {
        self.listings.values().flat_map(|listing| {
            let sellers =
                self.outlets.iter().filter(|outlet| outlet.sells(listing.name(), &listing.figures));
            let left_out = sellers.filter_map(|outlet| {
                let price = listing.figures.prices.get(&outlet.region)?;
                let sold_in = listing.anywhere.price.currency;
                (price.currency != sold_in).then(|| LeftOut {
                    model: listing.name().to_owned(),
                    endpoint: outlet.endpoint.clone(),
                    region: outlet.region.clone(),
                    currency: price.currency,
                    sold_in,
                })
            });
            left_out.collect::<Vec<_>>()
        })
    }
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Rejects an endpoint that would never be used, either at all or for a model that it names.
fn check_outlet(
    outlet: &Outlet,
    settings: &BTreeMap<String, ModelSettings>,
) -> Result<(), CatalogError> {
    let sells =
        |model: &String| settings.get(model).is_some_and(|figures| outlet.sells(model, figures));
    let (endpoint, region) = (outlet.endpoint.clone(), outlet.region.clone());
    if let Some(model) = outlet.models.iter().chain(&outlet.limits).find(|model| !sells(model)) {
        return Err(CatalogError::Unpriced { endpoint, model: model.clone(), region });
    }
    if !settings.keys().any(sells) {
        let priced: BTreeSet<_> =
            settings.values().flat_map(|figures| figures.prices.keys()).collect();
        let priced = joined(priced.into_iter().map(String::as_str));
        return Err(CatalogError::Idle { endpoint, region, priced });
    }
    Ok(())
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
mod tests;
