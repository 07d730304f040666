use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::extract::page_answer::PageAnswer;
use crate::extract::schema::Schema;
use crate::extract::templates::Templates;

/// The checks of a document of this template, all of whose values stand in its text.
fn checks_of(template: &str, answer: &Value) -> Vec<SumCheck> {
    let templates = Templates::built_in();
    checks_with(&templates.find(template).unwrap().parsed, answer, &answer.to_string())
}

fn checks_with(schema: &Schema, answer: &Value, text: &str) -> Vec<SumCheck> {
    let mut extraction = schema.fill_pages(vec![PageAnswer::of(1, &answer.into())]);
    extraction.ground(1, &text.replace('"', " "), &[]);
    extraction.check_sums(true);
    extraction.checks.unwrap()
}

/// Rule, reading, whether it holds, and the difference.
fn told(checks: &[SumCheck]) -> Vec<(SumRule, SumReading, bool, &str)> {
    checks
        .iter()
        .map(|check| (check.rule, check.reading, check.holds, check.difference.as_str()))
        .collect()
}

#[test]
fn the_sums_of_a_receipt_are_told_with_their_places() {
    let answer = json!({
        "items": [
            { "quantity": "2", "unit_price": "1.50", "amount": "3.00" },
            { "quantity": "1", "unit_price": "12.00", "amount": "12.00" },
        ],
        "subtotal": "15.00", "discount": "1.00", "tax": "0.90", "total": "14.90",
    });
    let checks = checks_of("receipt", &answer);
    assert_eq!(
        told(&checks),
        [
            (SumRule::LineAmount, SumReading::Plain, true, "0.00"),
            (SumRule::LineAmount, SumReading::Plain, true, "0.00"),
            (SumRule::ItemsSum, SumReading::Plain, true, "0.00"),
            (SumRule::Total, SumReading::Plain, true, "0.00"),
        ]
    );
    assert_eq!(checks[2].pointers, ["/items/0/amount", "/items/1/amount", "/subtotal"]);
    assert_eq!(checks[3].pointers, ["/subtotal", "/tax", "/discount", "/total"]);
    assert_eq!(
        serde_json::to_value(&checks[0]).unwrap(),
        json!({
            "rule": "line_amount", "holds": true, "reading": "plain", "expected": "3.00", "actual": "3.00",
            "difference": "0.00", "pointers": ["/items/0/quantity", "/items/0/unit_price", "/items/0/amount"],
        })
    );
}

#[test]
fn a_receipt_whose_prices_include_the_tax_is_right_and_says_so() {
    let with_subtotal = json!({ "subtotal": "106.00", "tax": "6.00", "total": "106.00" });
    assert_eq!(
        told(&checks_of("receipt", &with_subtotal)),
        [(SumRule::Total, SumReading::TaxIncluded, true, "0.00")]
    );
    let items = json!([{ "amount": "53.00" }, { "amount": "53.00" }]);
    let net = json!({ "items": items, "subtotal": "100.00", "tax": "6.00", "total": "106.00" });
    assert_eq!(
        told(&checks_of("receipt", &net)),
        [
            (SumRule::ItemsSum, SumReading::TaxIncluded, true, "0.00"),
            (SumRule::Total, SumReading::Plain, true, "0.00")
        ]
    );
    let alone = json!({ "items": items, "tax": "6.00", "total": "106.00" });
    assert_eq!(
        told(&checks_of("receipt", &alone)),
        [(SumRule::ItemsSum, SumReading::TaxIncluded, true, "0.00")]
    );
}

#[test]
fn a_discount_may_be_in_the_subtotal_and_have_a_minus() {
    let items = json!([{ "amount": "60.00" }, { "amount": "50.00" }]);
    let answer =
        json!({ "items": items, "subtotal": "100.00", "discount": "-10.00", "total": "100.00" });
    assert_eq!(
        told(&checks_of("receipt", &answer)),
        [
            (SumRule::ItemsSum, SumReading::DiscountIncluded, true, "0.00"),
            (SumRule::Total, SumReading::DiscountIncluded, true, "0.00")
        ]
    );
}

#[test]
fn a_wrong_sum_is_told_with_the_difference_in_the_plain_reading() {
    let answer =
        json!({ "invoice_number": "7", "subtotal": "100", "tax": "19.00", "total": "120.00" });
    let checks = checks_of("invoice", &answer);
    assert_eq!(told(&checks), [(SumRule::Total, SumReading::Plain, false, "1.00")]);
    assert_eq!((&*checks[0].expected, &*checks[0].actual), ("119.00", "120.00"));
}

#[test]
fn a_sum_with_parts_of_other_precision_may_be_off_by_one_unit_of_its_last_digit() {
    let holds = |tax: &str, total: &str| {
        let answer =
            json!({ "invoice_number": "7", "subtotal": "10.00", "tax": tax, "total": total });
        checks_of("invoice", &answer)[0].holds
    };
    assert_eq!(["11.89", "11.90", "11.91"].map(|total| holds("1.90", total)), [false, true, false]);
    assert_eq!(
        ["11.89", "11.90", "11.92"].map(|total| holds("1.904", total)),
        [false, true, false]
    );
    assert!(holds("1.90", "12"));
    let line = |amount: &str| {
        let items = json!([{ "quantity": "32.47", "unit_price": "2.05", "amount": amount }]);
        checks_of("receipt", &json!({ "items": items, "total": "1" }))[0].holds
    };
    // The product is 66.5635.
    assert_eq!(["66.55", "66.56", "66.57"].map(line), [false, true, false]);
}

#[test]
fn whole_amounts_must_be_equal() {
    let items = json!([{ "amount": "100" }, { "amount": "100" }, { "amount": "100" }]);
    let wrong = json!({ "items": items, "subtotal": "301", "total": "301" });
    assert_eq!(
        told(&checks_of("receipt", &wrong)),
        [(SumRule::ItemsSum, SumReading::Plain, false, "1")]
    );
}

#[test]
fn a_credit_note_has_its_discount_the_other_way() {
    let note =
        json!({ "subtotal": "-100.00", "tax": "-6.00", "discount": "10.00", "total": "-96.00" });
    assert_eq!(
        told(&checks_of("receipt", &note)),
        [(SumRule::Total, SumReading::Plain, true, "0.00")]
    );
}

#[test]
fn a_sum_that_something_else_may_explain_is_not_called_wrong() {
    let number = json!({ "type": "number" });
    let row = json!({ "type": "object", "properties": { "amount": number } });
    for answer in [
        json!({ "subtotal": "100.00", "gst": "5.00", "pst": "7.00", "total": "112.00" }),
        json!({ "subtotal": "100.00", "tax": "5.00", "deposit": "50.00", "amount_due": "55.00" }),
        json!({ "subtotal": "100.00", "tax": "0.00", "shipping": "5.00", "total": "100.00" }),
        json!({ "subtotal": "10.02", "tax": "0.00", "rounding": "0.02", "total": "10.00" }),
        json!({ "subtotal": "200.00", "discount": "10%", "total": "180.00" }),
        json!({ "items": [{ "amount": "10.00" }], "total": "10.60" }),
        json!({ "subtotal": "10.00", "discount": "1.00", "total": "9.54" }),
    ] {
        let members = answer.as_object().unwrap().keys().map(|name| {
            let schema = if name == "items" {
                json!({ "type": "array", "items": row })
            } else {
                number.clone()
            };
            (name.clone(), schema)
        });
        let members: Map<String, Value> = members.collect();
        let schema = Schema::parse(&json!({ "type": "object", "properties": members })).unwrap();
        assert_eq!(checks_with(&schema, &answer, &answer.to_string()), [], "{answer}");
    }
}

/// The checks of a receipt on several pages, all of whose values stand in their texts.
fn checks_of_pages(pages: &[Value], is_whole: bool) -> Vec<SumCheck> {
    let templates = Templates::built_in();
    let answers = pages.iter().zip(1..).map(|(page, number)| PageAnswer::of(number, &page.into()));
    let schema = &templates.find("receipt").unwrap().parsed;
    let mut extraction = schema.fill_pages(answers.collect());
    for (page, number) in pages.iter().zip(1..) {
        extraction.ground(number, &page.to_string().replace('"', " "), &[]);
    }
    extraction.check_sums(is_whole);
    extraction.checks.unwrap()
}

#[test]
fn lines_are_not_summed_if_some_may_be_missing_or_are_those_of_another_document() {
    let first = json!({ "items": [{ "amount": "100.00" }] });
    let last = json!({ "items": [{ "amount": "50.00" }], "subtotal": "150.00", "total": "150.00" });
    let pages = [first, last];
    assert!(checks_of_pages(&pages, true)[0].holds);
    assert_eq!(checks_of_pages(&pages, false), []);
    assert_eq!(checks_of_pages(&pages[1..], false), []);
    let receipt = |amount: &str| {
        json!({ "items": [{ "amount": amount }], "subtotal": amount, "total": "200.00",
                "date": format!("2018-01-{}", &amount[..2]) })
    };
    assert_eq!(checks_of_pages(&[receipt("10.00"), receipt("20.00")], true), []);
    let same = json!({ "items": [{ "amount": "10.00" }], "date": "2018-01-10", "subtotal": "10.00",
                       "total": "10.00" });
    let mut other = same.clone();
    other["date"] = "2018-01-11".into();
    assert_eq!(checks_of_pages(&[same, other], true), []);
    let incomplete = json!({ "items": [{ "amount": "10.00" }, { "amount": "abc" }], "subtotal": "30.00",
                       "total": "30.00" });
    assert_eq!(checks_of_pages(&[incomplete], true), []);
}

#[test]
fn a_sum_is_not_told_if_a_part_is_missing_or_was_not_found() {
    let whole = json!({ "subtotal": "10.00", "tax": "1.90", "total": "11.90" });
    let templates = Templates::built_in();
    let schema = &templates.find("receipt").unwrap().parsed;
    assert_eq!(checks_with(schema, &whole, "10.00 1.90 11.90").len(), 1);
    for text in ["10.00 1.90", "10.00 11.90", "1.90 11.90", ""] {
        assert_eq!(checks_with(schema, &whole, text), [], "{text}");
    }
    for missing in ["subtotal", "total"] {
        let mut part = whole.clone();
        part[missing] = Value::Null;
        assert_eq!(checks_of("receipt", &part), [], "{missing}");
    }
    let rate = json!({ "subtotal": "100.00", "tax": "6%", "total": "106.00" });
    assert_eq!(checks_of("receipt", &rate), []);
    let items = json!([{ "amount": "5.00" }, { "description": "free" }]);
    assert_eq!(checks_of("receipt", &json!({ "items": items, "total": "5.00" })), []);
}

#[test]
fn names_are_recognised_in_several_spellings_and_in_an_object() {
    for (list, amount, subtotal, tax, total) in [
        ("lineItems", "lineTotal", "sub_total", "VAT Amount", "Grand Total"),
        ("商品明细", "金额", "小计", "税额", "价税合计"),
        ("positionen", "Betrag", "Zwischensumme", "MwSt.", "Gesamtbetrag"),
    ] {
        let number = json!({ "type": "number" });
        let row = json!({ "type": "object", "properties": { amount: number } });
        let sums = json!({ "type": "object", "properties": {
            subtotal: number, tax: number, total: number } });
        let list_in = json!({ "type": "object", "properties": {
            list: { "type": "array", "items": row } } });
        let schema = json!({ "type": "object", "properties": { "goods": list_in, "sums": sums } });
        let sums = json!({ subtotal: "4.00", tax: "0.50", total: "4.50" });
        let rows = json!([{ amount: "1.00" }, { amount: "3.00" }]);
        let answer = json!({ "goods": { list: rows }, "sums": sums });
        let checks = checks_with(&Schema::parse(&schema).unwrap(), &answer, &answer.to_string());
        assert_eq!(
            told(&checks),
            [
                (SumRule::ItemsSum, SumReading::Plain, true, "0.00"),
                (SumRule::Total, SumReading::Plain, true, "0.00")
            ],
            "{list}"
        );
    }
}

#[test]
fn members_that_could_mean_the_same_are_not_guessed() {
    let number = json!({ "type": "number" });
    let schema = json!({ "type": "object", "properties": {
        "subtotal": number, "vat": number, "tax": number, "total": number } });
    let answer = json!({ "subtotal": "4.00", "vat": "0.50", "tax": "0.60", "total": "4.50" });
    let schema = Schema::parse(&schema).unwrap();
    assert_eq!(checks_with(&schema, &answer, &answer.to_string()), []);
}

/// An amount of cents as it is printed.
fn printed(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

proptest! {
    #[test]
    fn a_receipt_that_adds_up_in_any_reading_is_right_and_one_that_does_not_is_not(
        amounts in prop::collection::vec(1_i64..100_000, 1..6),
        tax in 1_i64..10_000,
        discount in 1_i64..10_000,
        [tax_included, discount_included] in any::<[bool; 2]>(),
        off in 100_i64..100_000,
        times in 2_i64..40,
    ) {
        let sum: i64 = amounts.iter().sum();
        let net = if discount_included { sum - discount } else { sum };
        let total = net + if tax_included { 0 } else { tax } - if discount_included { 0 } else { discount };
        let items: Vec<Value> = amounts
            .iter()
            .map(|amount| {
                let whole = printed(amount * times);
                json!({ "quantity": times.to_string(), "unit_price": printed(*amount), "amount": whole })
            })
            .collect();
        let receipt = |total: i64| json!({
            "items": items, "subtotal": printed(net * times), "tax": printed(tax * times),
            "discount": printed(discount * times), "total": printed(total * times),
        });
        let right = checks_of("receipt", &receipt(total));
        // A subtotal of zero or less is left out of this.
        prop_assume!(net > 0 && total > 0);
        prop_assert_eq!(right.len(), amounts.len() + 2);
        prop_assert!(right.iter().all(|check| check.holds), "{:?}", right);
        for check in &right {
            prop_assert_eq!(check.difference.trim_matches(['0', '.']), "");
        }
        // No reading makes this total.
        let readings = [0, tax].map(|tax| [0, discount].map(|discount| net + tax - discount)).concat();
        prop_assume!(readings.iter().all(|reading| (reading - total - off).abs() > 10));
        let wrong = checks_of("receipt", &receipt(total + off));
        let last = wrong.last().unwrap();
        prop_assert!(last.rule == SumRule::Total && !last.holds && last.reading == SumReading::Plain);
    }
}

#[test]
fn arithmetic_is_exact_and_stops_at_too_many_digits() {
    let exact = |text: &str| {
        let (digits, scale) = number::read(text).unwrap().scaled().unwrap();
        Exact { digits, scale }
    };
    let sum = Exact::sum(["0.1", "0.2", "-0.30"].map(exact).into_iter()).unwrap();
    assert_eq!(sum.to_string(), "0.00");
    assert_eq!(exact("1.5").times(exact("-0.01")).unwrap().to_string(), "-0.015");
    assert_eq!(exact(&"9".repeat(28)).times(exact(&"9".repeat(28))), None);
    assert!(number::read(&"9".repeat(29)).unwrap().scaled().is_none());
}
