//! A model as one caller may use it: its figures and its price in each region.

use std::sync::Arc;

use super::settings::{ModelSettings, PriceSettings};
use crate::units::{Currency, Money, Tokens, Usage};

/// The price of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    pub(super) input: Money,
    pub(super) output: Money,
    /// The currency of every cost computed from this price.
    pub currency: Currency,
}

impl Price {
    pub(super) const fn of_settings(settings: &PriceSettings) -> Self {
        Self {
            input: settings.input.per_token(),
            output: settings.output.per_token(),
            currency: settings.currency,
        }
    }

    /// The cost of `usage`, exact to the nano.
    pub const fn of(&self, usage: &Usage) -> Money {
        self.input.times(usage.input()).saturating_add(self.output.times(usage.output))
    }

    /// The higher input price and the higher output price of two prices in one currency. It covers any usage at either
    /// price.
    fn dearest(self, other: Self) -> Self {
        let (input, output) = (self.input.max(other.input), self.output.max(other.output));
        Self { input, output, ..self }
    }
}

/// A region in which a model is available, and its price there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) region: Arc<str>,
    pub(super) price: Price,
}

/// A model as one caller may use it.
///
/// It contains only the regions in which the caller may be served, so other modules need not check the caller's rules
/// (docs/adr/0014-regions.md). All its prices are in one currency.
#[derive(Debug, Clone)]
pub struct Model {
    /// The name of the model at DashScope.
    pub name: String,
    /// Its figures.
    pub figures: Arc<ModelSettings>,
    /// The maximum of its input prices and the maximum of its output prices. It covers a call in any of its regions.
    pub price: Price,
    /// Its offers, in the order of the configured endpoints.
    offers: Vec<Offer>,
}

impl Model {
    /// Builds a model from the offers that have the currency of the first offer; `None` without offers.
    pub(super) fn sold_by(
        name: &str,
        figures: &Arc<ModelSettings>,
        offers: impl Iterator<Item = Offer>,
    ) -> Option<Self> {
        let mut offers: Vec<_> = offers.collect();
        let currency = offers.first()?.price.currency;
        offers.retain(|offer| offer.price.currency == currency);
        let price = offers.iter().map(|offer| offer.price).reduce(Price::dearest)?;
        Some(Self { name: name.to_owned(), figures: Arc::clone(figures), price, offers })
    }

    /// The largest possible usage of a call: for each kind, the model's limit of input or output, or `bound` if that is
    /// larger. The vendor cannot send a bill above it.
    pub fn most(&self, bound: &Usage) -> Usage {
        let (input, output) = (self.figures.max_input_tokens, self.figures.max_tokens);
        Usage {
            image: bound.image.max(input),
            text: bound.text.max(input),
            output: bound.output.max(output),
        }
    }

    /// The tokens of a bill that count against the account's tokens a minute, capped at the most that one call can use
    /// by the model's limits. The bound of a call may be larger, because the provider rejects a longer input without a
    /// charge.
    pub fn rated(&self, billed: &Usage) -> Tokens {
        let most = self.figures.max_input_tokens.saturating_add(self.figures.max_tokens);
        billed.total().min(most)
    }

    /// Whether the model may serve the caller in `region`.
    pub fn is_sold_in(&self, region: &str) -> bool {
        self.offer(region).is_some()
    }

    /// The price in `region`; the maximum price if the model is not sold there.
    pub fn price_in(&self, region: &str) -> Price {
        self.offer(region).map_or(self.price, |offer| offer.price)
    }

    /// The regions that may serve the caller, in configuration order.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.offers.iter().map(|offer| &*offer.region)
    }

    fn offer(&self, region: &str) -> Option<&Offer> {
        self.offers.iter().find(|offer| &*offer.region == region)
    }
}

#[cfg(test)]
impl Model {
    /// The figures of `qwen-vl-ocr-2025-11-20` under another name and with zero prices.
    pub(crate) fn sample() -> Arc<Self> {
        Self::priced(&[("beijing", 0, 0)])
    }

    /// The same model with these prices: region, and the nanos for an input token and for an output token.
    pub(crate) fn priced(prices: &[(&str, u64, u64)]) -> Arc<Self> {
        use crate::units::Pixels;
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
            prices: std::collections::BTreeMap::new(),
        };
        let offers = prices.iter().map(|(region, input, output)| Offer {
            region: Arc::from(*region),
            price: Price {
                input: Money::from_nanos(*input),
                output: Money::from_nanos(*output),
                currency: Currency::Cny,
            },
        });
        Arc::new(Self::sold_by("sample", &Arc::new(figures), offers).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_reserved_covers_every_usage_within_the_bound_in_every_region(
            prices in prop::collection::vec((0_u64..1 << 20, 0_u64..1 << 20), 1..4),
            bound in (0_u64..1 << 30, 0_u64..1 << 30, 0_u64..1 << 30),
            share in (0_u64..=100, 0_u64..=100, 0_u64..=100),
        ) {
            let names = ["beijing", "virginia", "singapore"];
            let prices: Vec<_> =
                names.iter().zip(prices).map(|(name, (input, output))| (*name, input, output)).collect();
            let model = Model::priced(&prices);
            let of = |most: u64, percent: u64| Tokens::new(most * percent / 100);
            let usage = |share: (u64, u64, u64)| Usage {
                image: of(bound.0, share.0),
                text: of(bound.1, share.1),
                output: of(bound.2, share.2),
            };
            let reserved = model.price.of(&usage((100, 100, 100)));
            for (region, ..) in prices {
                prop_assert!(model.price_in(region).of(&usage(share)) <= reserved);
            }
        }
    }

    #[test]
    fn the_reserved_price_is_the_dearest_of_input_and_of_output_each_by_itself() {
        let model = Model::priced(&[("beijing", 1, 9), ("virginia", 5, 2)]);
        let usage = Usage { image: Tokens::new(10), text: Tokens::ZERO, output: Tokens::new(10) };
        assert_eq!(model.price.of(&usage).nanos(), 50 + 90);
        assert_eq!(model.price_in("beijing").of(&usage).nanos(), 10 + 90);
        assert_eq!(model.price_in("virginia").of(&usage).nanos(), 50 + 20);
    }

    #[test]
    fn a_bill_takes_no_more_of_a_rate_than_one_call_can() {
        let model = Model::priced(&[("beijing", 1, 9)]);
        let rated = |image, text, output| {
            let [image, text, output] = [image, text, output].map(Tokens::new);
            model.rated(&Usage { image, text, output }).get()
        };
        assert_eq!(rated(728, 24, 432), 1_184);
        assert_eq!(rated(30_000, 20_000_000, 8_192), 38_192);
        assert_eq!(rated(u64::MAX, u64::MAX, u64::MAX), 38_192);
    }

    #[test]
    fn a_region_that_is_not_sold_has_no_price_below_the_dearest() {
        let model = Model::priced(&[("beijing", 1, 9), ("virginia", 5, 2)]);
        assert!(!model.is_sold_in("mars"));
        assert_eq!(model.price_in("mars"), model.price);
    }
}
