use super::*;
use crate::units::Pixels;
use crate::units::Usage;

/// Figures with prices by region, each as `REGION INPUT OUTPUT CURRENCY`.
fn figures(prices: &[&str]) -> ModelSettings {
    let prices = prices.iter().map(|price| {
        let [region, input, output, currency] =
            price.split(' ').collect::<Vec<_>>().try_into().unwrap();
        format!(
            "[prices.{region}]\ninput = \"{input}\"\noutput = \"{output}\"\n\
             currency = \"{currency}\"\nsource = \"a page\"\nchecked = \"2026-02-12\"\n"
        )
    });
    let text = format!(
        "cell = 32\nmin_pixels = 3072\ndefault_max_pixels = 8388608\n\
         largest_max_pixels = 30720000\nmax_tokens = 8192\nmax_input_tokens = 30000\n\
         template_tokens = 24\nbuiltin_tasks = true\nrpm = 600\ntpm = 6000000\n{}",
        prices.collect::<String>()
    );
    let source = config::File::from_str(&text, config::FileFormat::Toml);
    let parsed = config::Config::builder().add_source(source).build();
    parsed.unwrap().try_deserialize().unwrap()
}

const BEIJING: &str = "beijing 0.3 0.5 CNY";
const VIRGINIA: &str = "virginia 0.514 1.174 CNY";
const SINGAPORE: &str = "singapore 0.07 0.16 USD";

/// Endpoints named and placed `NAME@REGION`, for all models.
fn outlets(places: &[&str]) -> Vec<Outlet> {
    let outlet = |place: &&str| {
        let (endpoint, region) = place.split_once('@').unwrap();
        let (models, limits) = Default::default();
        Outlet { endpoint: endpoint.into(), region: region.into(), models, limits }
    };
    places.iter().map(outlet).collect()
}

/// A catalog of the model `m`, priced in three regions.
fn catalog(places: &[&str]) -> Catalog {
    let models = BTreeMap::from([("m".to_owned(), figures(&[BEIJING, VIRGINIA, SINGAPORE]))]);
    Catalog::new(&models, outlets(places), "m").unwrap()
}

fn regions(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn sold_in(catalog: &Catalog, allowed: &[&str]) -> Vec<String> {
    let found = catalog.find(None).unwrap().sold_in(&regions(allowed));
    found.iter().flat_map(|model| model.regions()).map(str::to_owned).collect()
}

#[test]
fn the_documented_example_costs_what_the_documentation_says() {
    let model = catalog(&["cn@beijing"]).find(None).unwrap().sold_in(&[]).unwrap();
    let usage = Usage { image: Tokens::new(728), text: Tokens::new(24), output: Tokens::new(432) };
    assert_eq!(model.price.of(&usage).to_string(), "0.0004416");
}

#[test]
fn a_model_without_a_price_where_endpoints_are_is_not_offered() {
    let models = BTreeMap::from([
        ("m".to_owned(), figures(&[BEIJING])),
        ("free".to_owned(), figures(&[])),
        ("far".to_owned(), figures(&[SINGAPORE])),
    ]);
    let catalog = Catalog::new(&models, outlets(&["cn@beijing"]), "m").unwrap();
    assert_eq!(catalog.names().collect::<Vec<_>>(), ["m"]);
    assert!(catalog.find(Some("free")).is_none() && catalog.find(Some("far")).is_none());
}

#[test]
fn a_model_is_sold_where_an_endpoint_serves_it_and_nowhere_else() {
    let models = BTreeMap::from([
        ("m".to_owned(), figures(&[BEIJING, VIRGINIA])),
        ("n".to_owned(), figures(&[BEIJING, VIRGINIA])),
    ]);
    let mut outlets = outlets(&["cn@beijing", "us@virginia"]);
    outlets[0].models = vec!["n".to_owned()];
    let catalog = Catalog::new(&models, outlets, "m").unwrap();
    assert_eq!(sold_in(&catalog, &[]), ["virginia"]);
    assert!(catalog.find(Some("n")).unwrap().sold_in(&regions(&["beijing"])).is_some());
}

#[test]
fn a_caller_is_sold_to_in_its_regions_only() {
    let catalog = catalog(&["cn@beijing", "us@virginia"]);
    assert_eq!(sold_in(&catalog, &[]), ["beijing", "virginia"]);
    assert_eq!(sold_in(&catalog, &["virginia"]), ["virginia"]);
    assert_eq!(sold_in(&catalog, &["virginia", "beijing"]), ["beijing", "virginia"]);
    assert_eq!(sold_in(&catalog, &["singapore"]), [""; 0]);
}

#[test]
fn a_caller_pays_and_reserves_by_the_prices_of_its_regions() {
    let catalog = catalog(&["cn@beijing", "us@virginia"]);
    let usage = Usage { image: Tokens::new(1_000_000), ..Usage::default() };
    let cost = |allowed: &[&str]| {
        let model = catalog.find(None).unwrap().sold_in(&regions(allowed)).unwrap();
        model.price.of(&usage).to_string()
    };
    assert_eq!(cost(&["beijing"]), "0.3");
    assert_eq!(cost(&["virginia"]), "0.514");
    assert_eq!(cost(&[]), "0.514");
}

#[test]
fn a_second_endpoint_of_a_region_changes_nothing() {
    let catalog = catalog(&["cn-1@beijing", "us@virginia", "cn-2@beijing"]);
    assert_eq!(sold_in(&catalog, &[]), ["beijing", "virginia"]);
}

#[test]
fn a_caller_is_sold_to_in_the_currency_of_its_first_endpoint() {
    let catalog = catalog(&["cn@beijing", "sg@singapore", "us@virginia"]);
    assert_eq!(sold_in(&catalog, &[]), ["beijing", "virginia"]);
    assert_eq!(sold_in(&catalog, &["virginia", "singapore"]), ["singapore"]);
    let model = catalog.find(None).unwrap().sold_in(&regions(&["singapore"])).unwrap();
    assert_eq!(model.price.currency, Currency::Usd);
}

#[test]
fn endpoints_that_are_left_out_for_their_currency_are_told() {
    let catalog = catalog(&["sg@singapore", "cn@beijing"]);
    let expected = LeftOut {
        model: "m".to_owned(),
        endpoint: "cn".to_owned(),
        region: "beijing".to_owned(),
        currency: Currency::Cny,
        sold_in: Currency::Usd,
    };
    assert_eq!(catalog.left_out().collect::<Vec<_>>(), [expected]);
}

#[test]
fn endpoints_of_one_currency_leave_none_out() {
    assert_eq!(catalog(&["cn@beijing", "us@virginia"]).left_out().count(), 0);
}

#[test]
fn an_unpriced_default_model_is_an_error_that_names_the_key() {
    let models = BTreeMap::from([("m".to_owned(), figures(&[BEIJING]))]);
    let error = Catalog::new(&models, outlets(&["x@mars"]), "m").unwrap_err().to_string();
    assert!(error.starts_with("upstream.model") && error.contains("\"mars\""), "{error}");
}

#[test]
fn an_endpoint_that_would_serve_nothing_is_an_error_that_names_it() {
    let models = BTreeMap::from([("m".to_owned(), figures(&[BEIJING]))]);
    let places = outlets(&["cn@beijing", "x@mars"]);
    let error = Catalog::new(&models, places, "m").unwrap_err().to_string();
    assert!(error.contains("\"mars\" of \"x\"") && error.ends_with("beijing"), "{error}");
}

#[test]
fn an_endpoint_that_is_to_serve_or_limit_an_unpriced_model_is_an_error_that_names_both() {
    let models = BTreeMap::from([("m".to_owned(), figures(&[BEIJING]))]);
    let wrong: [fn(&mut Outlet); 2] = [
        |outlet| outlet.models = vec!["m".to_owned(), "n".to_owned()],
        |outlet| outlet.limits = vec!["n".to_owned()],
    ];
    for change in wrong {
        let mut outlets = outlets(&["cn@beijing"]);
        change(&mut outlets[0]);
        let error = Catalog::new(&models, outlets, "m").unwrap_err().to_string();
        assert!(error.contains("\"cn\"") && error.contains("\"n\""), "{error}");
    }
}

#[test]
fn figures_that_contradict_each_other_are_an_error_that_names_the_key() {
    let wrong = ModelSettings { default_max_pixels: Pixels::new(1), ..figures(&[BEIJING]) };
    let models = BTreeMap::from([("m".to_owned(), wrong)]);
    let error = Catalog::new(&models, outlets(&["cn@beijing"]), "m").unwrap_err().to_string();
    assert!(error.starts_with("models.m.min_pixels"), "{error}");
}

#[test]
fn a_catalog_sells_to_a_caller_what_is_sold_in_its_regions() {
    let models = BTreeMap::from([
        ("m".to_owned(), figures(&[BEIJING, SINGAPORE])),
        ("n".to_owned(), figures(&[BEIJING])),
    ]);
    let places = outlets(&["cn@beijing", "sg@singapore"]);
    let catalog = Catalog::new(&models, places, "n").unwrap();
    let names = |allowed: &[&str]| {
        let allowed = regions(allowed);
        catalog.sold_in(&allowed).map(|model| model.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["m", "n"]);
    assert_eq!(names(&["singapore"]), ["m"]);
    assert_eq!(names(&["mars"]), [""; 0]);
}
