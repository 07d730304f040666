use proptest::prelude::*;
use serde_json::json;

use super::*;

/// How a value is found that the model wrote as `raw`, and where.
fn found<'t>(text: &'t str, raw: &str, value: &Value) -> Option<(Grounded, &'t str)> {
    let found = Search::of(&[Wanted { raw, value }]).read(text).remove(0);
    found.map(|place| (place.grounded, &text[place.range]))
}

/// How a text is found.
fn how(text: &str, raw: &str) -> Option<Grounded> {
    found(text, raw, &json!(raw)).map(|(how, _)| how)
}

/// How a number is found.
fn number_in(text: &str, raw: &str) -> Option<Grounded> {
    let value = number::read(raw).unwrap().to_number().unwrap();
    found(text, raw, &value.into()).map(|(how, _)| how)
}

const EXACT: Option<Grounded> = Some(Grounded::Exact);
const NORMALISED: Option<Grounded> = Some(Grounded::Normalised);

#[test]
fn a_value_is_found_as_whole_tokens_only() {
    for (text, value) in [
        ("a party", "art"),
        ("15.00", "5"),
        ("1,234", "234"),
        ("-5.00", "5.00"),
        ("INV-0042", "0042"),
        ("29/06/2013", "06"),
        ("14:05", "05"),
        ("12.50.", "2.50"),
        ("3万", "3"),
        ("SDN BHD", "SDNBHD"),
        ("a b", "b a"),
        ("a b", "a c b"),
        ("a x b", "a b"),
        ("", "a"),
    ] {
        assert_eq!(how(text, value), None, "{value:?} in {text:?}");
    }
}

#[test]
fn a_text_is_exact_as_it_is_written_and_normalised_otherwise() {
    let text = "ACME SDN. BHD.\n12, Jalan Wangi,\nTaman A";
    assert_eq!(how(text, "ACME SDN. BHD."), EXACT);
    assert_eq!(how(text, "Acme Sdn Bhd"), NORMALISED);
    assert_eq!(how(text, "ＡＣＭＥ　SDN. BHD."), NORMALISED);
    assert_eq!(how(text, "12, Jalan Wangi, Taman A"), NORMALISED);
    assert_eq!(how(text, "12 JALAN WANGI TAMAN A"), NORMALISED);
    assert_eq!(how("cafe\u{301} 5 %", "CAF\u{c9}"), NORMALISED);
    assert_eq!(how("5 %", "5"), EXACT);
    assert_eq!(how("5", "5 %"), None);
}

#[test]
fn chinese_is_found_between_other_characters() {
    assert_eq!(how("购买方名称：上海某某有限公司（盖章）", "上海某某有限公司"), EXACT);
    assert_eq!(how("上 海 某某有限公司", "上海某某有限公司"), NORMALISED);
    assert_eq!(how("上海有限公司", "上海某某有限公司"), None);
    assert_eq!(number_in("总额￥53.0元", "￥53.0元"), EXACT);
    assert_eq!(number_in("总额：１，２３４．５０元", "1234.50"), NORMALISED);
    assert_eq!(number_in("53元5角", "53元"), None);
    assert_eq!(number_in("3万元", "3"), None);
}

#[test]
fn the_value_counts_too_if_the_model_wrote_it_otherwise() {
    assert_eq!(found("currency EUR", "euros", &json!("EUR")), Some((Grounded::Exact, "EUR")));
    assert_eq!(found("paid: yes", "yes", &json!(true)), Some((Grounded::Exact, "yes")));
    assert_eq!(found("paid", "true", &json!(true)), None);
    for raw in ["about 5", "N/A", "-", "null"] {
        assert_eq!(found(raw, raw, &Value::Null), None, "{raw}");
    }
}

#[test]
fn a_number_is_found_in_any_spelling_of_the_same_number() {
    for text in
        ["1,234.50", "1.234,50", "1234.5", "RM1,234.50", "TOTAL:1'234.50", "$ 1 234.50 1234.50"]
    {
        let how = number_in(text, "1234.50");
        assert!(how.is_some(), "{text}");
        assert_eq!(how == EXACT, text.ends_with(" 1234.50"), "{text}");
    }
    assert_eq!(number_in("QTY (2)", "2"), EXACT);
    assert_eq!(number_in("1 234,56", "1 234,56"), EXACT);
    assert_eq!(number_in("50%", "50 %"), EXACT);
}

#[test]
fn a_number_is_not_found_in_another_number() {
    for (text, raw) in [
        ("-5.00", "5.00"),
        ("-$5.00", "5.00"),
        ("(5.00)", "5.00"),
        ("5.00-", "5.00"),
        ("5", "-5"),
        ("A-12", "12"),
        ("12k", "12"),
        ("G123", "123"),
        ("Rp 50.000", "50"),
        ("50.000 VND", "50"),
        ("10.50", "1.05"),
        ("100", "10"),
        ("12.34.56", "12.34"),
        ("2018-01-05", "2018"),
    ] {
        assert_eq!(number_in(text, raw), None, "{raw} in {text}");
    }
    assert_eq!(number_in("(5.00)", "-5.00"), NORMALISED);
    assert_eq!(number_in("Rp 50.000", "50000"), NORMALISED);
}

#[test]
fn a_number_whose_groups_may_have_blanks_between_them_is_found_only_as_a_whole() {
    for (text, raw) in [
        ("Total 1 234,56 EUR", "234,56"),
        ("Total 1 234,56 EUR", "1"),
        ("12 345 678", "678"),
        ("12 345 678", "345"),
        ("12 345 678", "12"),
        ("5 000", "5"),
        ("5 000", "0"),
        ("-1 234.50", "234.50"),
        ("RM1 234.50", "234.50"),
    ] {
        assert_eq!(number_in(text, raw), None, "{raw} in {text}");
        assert_eq!(how(text, raw), None, "{raw} in {text}");
    }
    assert_eq!(number_in("Total 1 234,56 EUR", "1234,56"), NORMALISED);
    assert_eq!(number_in("Total 1 234,56 EUR", "1 234,56"), EXACT);
    assert_eq!(number_in("12 345 678", "12345678"), NORMALISED);
    assert_eq!(number_in("2 300.00\nTotal 300.00", "300.00"), EXACT);
    for (text, raw) in
        [("1234 567", "567"), ("12.50 300", "300"), ("2  150", "150"), ("2\n150", "2")]
    {
        assert_eq!(number_in(text, raw), EXACT, "{raw} in {text}");
    }
}

#[test]
fn a_number_behind_which_a_multiplier_stands_is_another_number() {
    for (text, raw) in [
        ("总额 3 万元", "3"),
        ("1.5 万", "1.5"),
        ("3 亿", "3"),
        ("5 million", "5"),
        ("2 Thousand", "2"),
        ("5 ½", "5"),
    ] {
        assert_eq!(number_in(text, raw), None, "{raw} in {text}");
        assert_eq!(how(text, raw), None, "{raw} in {text}");
    }
    assert_eq!(number_in("5 miles", "5"), EXACT);
    assert_eq!(number_in("5\n万", "5"), EXACT);
}

#[test]
fn signs_and_brackets_count_with_blanks_between_them_and_the_number() {
    for text in [
        "( 5.00 )",
        "(RM 5.00)",
        "($ 5.00)",
        "(5.00 USD)",
        "-\u{a0}5.00",
        "- RM 5.00",
        "-RM 5.00",
        "5.00 -",
    ] {
        assert_eq!(number_in(text, "5.00"), None, "{text}");
        assert_eq!(number_in(text, "-5.00"), NORMALISED, "{text}");
    }
    // The dash may be a minus or not.
    for text in ["Total - 5.00", "3.00 - 5.00"] {
        assert_eq!(number_in(text, "5.00"), None, "{text}");
        assert_eq!(number_in(text, "-5.00"), None, "{text}");
    }
    for text in
        ["5.00 - paid", "5.00 -3.00", "3.00- 5.00", "Total- 5.00", "(Visa) 5.00", "(5.00 each"]
    {
        assert_eq!(number_in(text, "5.00"), EXACT, "{text}");
    }
    assert_eq!(number_in("优惠-¥5.00", "-5.00"), NORMALISED);
}

#[test]
fn a_rate_is_found_as_a_rate_and_another_currency_is_not_exact() {
    let five = json!(5);
    assert_eq!(found("5 items", "5%", &five), None);
    assert_eq!(found("5 %", "5%", &five), Some((Grounded::Exact, "5")));
    assert_eq!(found("5%", "5", &five), Some((Grounded::Normalised, "5")));
    assert_eq!(found("5.00 EUR", "$5.00", &five), Some((Grounded::Normalised, "5.00")));
    assert_eq!(found("RM 5.00 pcs", "RM 5.00", &five), Some((Grounded::Exact, "5.00")));
    assert_eq!(found("RM 5.00", "5.00", &five), Some((Grounded::Exact, "5.00")));
}

#[test]
fn a_chinese_number_is_not_found_in_a_longer_one() {
    for (text, raw) in [("五百万", "五百"), ("十一月", "一月"), ("二十五元", "十五")]
    {
        assert_eq!(how(text, raw), None, "{raw} in {text}");
    }
    assert_eq!(how("共五百元", "五百"), EXACT);
}

#[test]
fn a_row_of_numbers_is_no_date_and_other_eras_count_their_own_years() {
    for (text, date) in [
        ("12 5 24", "2024-05-12"),
        ("Qty 1 2 13 items", "2013-02-01"),
        ("1, 2, 13", "2013-02-01"),
        ("12. 5 - 24", "2024-05-12"),
        ("5 29 06 2013", "2006-05-29"),
        ("平成25年6月29日", "1925-06-29"),
        ("平成25年6月29日", "2025-06-29"),
        ("令和 6年6月29日", "2006-06-29"),
        ("民國 13.6.29", "2013-06-29"),
    ] {
        assert_eq!(found(text, "x", &json!(date)), None, "{date} in {text}");
    }
    for text in ["29 06 2013", "29 / 06 / 13", "29 Jun 13", "13年6月29日"] {
        let found = found(text, "x", &json!("2013-06-29")).map(|(how, _)| how);
        assert_eq!(found, NORMALISED, "{text}");
    }
}

#[test]
fn a_text_of_digits_is_found_with_other_groups_and_with_all_its_zeros() {
    assert_eq!(how("1,234.50", "1234.50"), NORMALISED);
    assert_eq!(how("1234.5", "1234.50"), None);
    assert_eq!(how("7", "007"), None);
    assert_eq!(how("No. 007", "007"), EXACT);
}

#[test]
fn a_date_is_found_however_it_is_printed() {
    for text in [
        "29/06/2013",
        "Date: 29.6.2013 14:05",
        "20130629",
        "29 Jun 2013",
        "June 29th, 2013",
        "29-JUN-2013",
        "2013年6月29日",
        "２０１３年０６月２９日",
        "29/6/13",
        "29 . 06 . 2013",
    ] {
        assert_eq!(
            found(text, "x", &json!("2013-06-29")).map(|(how, _)| how),
            NORMALISED,
            "{text}"
        );
    }
    assert_eq!(how("on 2013-06-29.", "2013-06-29"), EXACT);
    for text in [
        "29/06/2014",
        "28/06/2013",
        "29 06\n2013",
        "2013",
        "29 people in June of 2013",
        "1129/06/2013",
    ] {
        assert_eq!(found(text, "x", &json!("2013-06-29")), None, "{text}");
    }
}

#[test]
fn a_printed_date_with_two_readings_counts_as_both() {
    for date in ["2018-04-03", "2018-03-04"] {
        assert_eq!(found("03/04/2018", "x", &json!(date)).map(|(how, _)| how), NORMALISED);
    }
    assert_eq!(found("03/04/2018", "x", &json!("2018-04-04")), None);
}

#[test]
fn a_time_is_found_alone_and_with_its_date_in_one_line() {
    for (text, time) in [("14:05", "14:05:00"), ("2:05 PM", "14:05:00"), ("下午2:05", "14:05:00")]
    {
        let found = found(text, "x", &json!(time)).map(|(how, _)| how);
        assert_eq!(found, NORMALISED, "{text}");
    }
    let both = json!("2013-06-29T14:05:00");
    for text in [
        "29/06/2013 14:05",
        "14:05:00 on 29 June 2013",
        "2013年06月29日14:05开",
        "2013-06-29T14:05",
    ] {
        assert_eq!(found(text, "x", &both).map(|(how, _)| how), NORMALISED, "{text}");
    }
    for text in ["29/06/2013", "14:05", "29/06/2013\n14:05", "29/06/2013 14:06"] {
        assert_eq!(found(text, "x", &both), None, "{text}");
    }
}

/// An extraction with one text field for each value, all from page 1.
fn extraction(values: &[&str]) -> Extraction {
    use crate::extract::page_answer::PageAnswer;
    use crate::extract::schema::Schema;

    let list = json!({ "type": "array", "items": { "type": "string" } });
    let schema =
        json!({ "type": "object", "properties": { "all": list, "none": { "type": "string" } } });
    let schema = Schema::parse(&schema).unwrap();
    schema.fill_pages(vec![PageAnswer::of(1, &json!({ "all": values }).into())])
}

#[test]
fn the_lines_that_hold_a_value_are_told() {
    let text = "ACME\n12 Main Street\nTown A\n\nTotal 5.00";
    let lines = ["ACME", "12 Main Street", "Town A", "Total 5.00"];
    let mut extraction = extraction(&["5.00", "12 Main Street, Town A", "Town", "gone"]);
    let placed = extraction.ground(1, text, &lines);
    let placed: Vec<_> = placed.into_iter().map(|placed| (placed.field, placed.lines)).collect();
    assert_eq!(placed, [(0, 3..4), (1, 1..3), (2, 2..3)]);
    let grounded: Vec<_> = extraction.fields.iter().map(|(_, field)| field.grounded).collect();
    let none = Some(Grounded::None);
    assert_eq!(grounded, [EXACT, NORMALISED, EXACT, none, none]);
}

#[test]
fn values_are_looked_for_on_their_own_page() {
    let mut extraction = extraction(&["a"]);
    assert!(extraction.ground(2, "a", &[]).is_empty());
    assert_eq!(extraction.fields[0].1.grounded, None);
}

#[test]
fn lines_that_the_text_has_beside_others_keep_their_places() {
    let ranges = ranges_of("a\nb\na", &["b", "a", "gone", ""]);
    assert_eq!(ranges, [2..3, 4..5, 5..5, 5..5]);
    assert_eq!(lines_of(&ranges, &(4..5)), 1..2);
    assert_eq!(lines_of(&ranges, &(0..1)), 0..0);
}

#[test]
fn a_line_is_not_taken_for_a_part_of_another_one() {
    let text = "x TOTAL 9 y\nTOTAL 9\nTOTAL 9 z\nend";
    let ranges = ranges_of(text, &["TOTAL 9", "gone", "end"]);
    assert_eq!(&text[ranges[0].clone()], "TOTAL 9");
    assert_eq!(ranges[0].start, 12);
    assert_eq!((ranges[1].is_empty(), &text[ranges[2].clone()]), (true, "end"));
}

#[test]
fn thousands_of_values_in_a_long_text_take_a_bounded_number_of_steps() {
    // Each value is the beginning of the next, and all but the last are in the text.
    let values: Vec<String> = (1..300).map(|length| "a ".repeat(length)).collect();
    let wanted: Vec<Value> = values.iter().map(|value| value.trim().into()).collect();
    let date = json!("2018-01-02");
    let mut all: Vec<Wanted<'_>> =
        values.iter().zip(&wanted).map(|(raw, value)| Wanted { raw: raw.trim(), value }).collect();
    all.extend(std::iter::repeat_n(Wanted { raw: "x", value: &date }, 2_000));
    let text = "a 5 2018 1 3 ".repeat(20_000) + &"a ".repeat(500);
    let mut search = Search::of(&all);
    search.read_numbers_and_moments(&text, &[]);
    assert_eq!(search.moments.readings, MOST_READINGS);
    let found = search.read(&text);
    assert_eq!(found.iter().flatten().count(), values.len());
}

/// A text without what normalisation leaves out. Independent of the code under test.
fn bare(text: &str) -> String {
    let kept = |character: &char| !character.is_whitespace() && !DROPPED_SIGNS.contains(*character);
    text.chars().filter(kept).flat_map(char::to_lowercase).collect()
}

/// Whether the text has the value at a place where no letter or digit goes on before and behind it.
fn holds_whole(text: &str, value: &str) -> bool {
    let goes_on = |one: Option<char>, other: Option<char>| {
        let word = |c: char| c.is_ascii_alphanumeric();
        one.is_some_and(word) && other.is_some_and(word)
    };
    text.match_indices(value).any(|(at, _)| {
        let (before, behind) = (&text[..at], &text[at + value.len()..]);
        !goes_on(before.chars().next_back(), value.chars().next())
            && !goes_on(value.chars().next_back(), behind.chars().next())
    })
}

/// Whether a place of the text is a whole number with this value. This says it in another way than the code under test.
fn is_whole_number(text: &str, place: &str, value: &Decimal) -> bool {
    let start = place.as_ptr().addr() - text.as_ptr().addr();
    let (before, behind) = (&text[..start], &text[start + place.len()..]);
    let is_part = |one: Option<char>, next: Option<char>| match one {
        Some('.' | ',') => next.is_some_and(|next| next.is_ascii_digit()),
        one => one.is_some_and(|one| one.is_ascii_alphanumeric()),
    };
    let (mut left, mut right) = (before.chars().rev(), behind.chars());
    // A sign at its end ends a number in any case.
    let ends = [place.chars().next(), place.chars().next_back()];
    let [begins, ends] = ends.map(|end| end.is_some_and(|end| end.is_ascii_digit()));
    let goes_on =
        begins && is_part(left.next(), left.next()) || ends && is_part(right.next(), right.next());
    let plain = value.plain();
    let (is_negative, bare) = (plain.starts_with('-'), plain.trim_start_matches('-'));
    let read = number::read(place).map(|number| number.plain());
    let blank = |c: char| c.is_whitespace() && c != '\n' || c == '$';
    let (near_before, near_behind) =
        (before.trim_end_matches(blank), behind.trim_start_matches(blank));
    let is_of_last =
        near_before.trim_end_matches('-').ends_with(|c: char| c.is_ascii_alphanumeric())
            && before.ends_with(char::is_whitespace);
    let of_next = near_behind.trim_start_matches('-').trim_start_matches('$');
    let is_of_next = behind.starts_with(char::is_whitespace)
        && of_next.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | ',' | '('))
        || of_next.trim_start_matches(blank).starts_with(char::is_alphabetic);
    let has_minus = bare != "0"
        && (near_before.ends_with('-') && !is_of_last
            || near_behind.starts_with('-') && !is_of_next);
    let is_bracketed = bare != "0" && near_before.ends_with('(') && near_behind.starts_with(')');
    // Three digits behind one blank may go on with the number before them.
    let is_group = |text: &str| {
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        text.len() - digits.len() == 3 && !digits.starts_with(['/', ':'])
    };
    let ends_like_a_group = |text: &str| {
        let head = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &text[head.len()..];
        let is_alone = head.is_empty() || head.ends_with([' ', '\n', '总']);
        is_alone && (1..=3).contains(&digits.len()) && !digits.starts_with('0')
    };
    let is_cut = ends_like_a_group(place) && behind.strip_prefix(' ').is_some_and(is_group)
        || is_group(place) && before.strip_suffix(' ').is_some_and(ends_like_a_group);
    let is_multiplied = behind.trim_start_matches(' ').starts_with('万');
    let is_count = place.bytes().all(|byte| byte.is_ascii_digit());
    let read = if place.contains(' ') { Some(place) } else { None }
        .map_or(read, |place| number::read(&place.replace('\n', "?")).map(|number| number.plain()));
    !goes_on
        && !is_cut
        && !is_multiplied
        && if is_negative {
            read.as_deref() == Some(&plain)
                || read.as_deref() == Some(bare) && (has_minus || is_bracketed)
        } else {
            read.as_deref() == Some(&plain) && !has_minus && (!is_bracketed || is_count)
        }
}

proptest! {
    #[test]
    fn no_text_is_called_found_that_the_text_does_not_hold(
        text in "[-ab1 .,/总\n]{0,24}",
        value in "[-aAb1 .,/总]{1,5}",
    ) {
        let value = value.trim();
        match how(&text, value) {
            Some(Grounded::Exact) => prop_assert!(holds_whole(&text, value)),
            Some(_) => {
                let digits_only = !value.contains(['a', 'A', 'b', '总']);
                prop_assert!(digits_only || bare(&text).contains(&bare(value)));
            }
            None => {}
        }
    }

    #[test]
    fn no_number_is_called_found_that_the_text_does_not_hold(
        text in "[-0-9.,() x总万\n]{0,12}\\$?( ?[1-9][0-9]{2}){0,3}[-0-9.,() x总万\n]{0,12}",
        raw in "-?[0-9]{1,3}([.,][0-9]{1,3})?",
    ) {
        let Some(number) = number::read(&raw) else { return Ok(()) };
        let Some(value) = number.to_number() else { return Ok(()) };
        if let Some((how, place)) = found(&text, &raw, &value.into()) {
            prop_assert!(is_whole_number(&text, place, &number), "{:?} {:?}", how, place);
            prop_assert!(how != Grounded::Exact || raw == place);
        }
    }

    #[test]
    fn a_value_between_other_words_is_found_exactly(
        before in "([a-z0-9]{1,4} ){0,4}",
        value in "[A-Z][a-z]{0,5}( [A-Z]{1,4}|, [0-9]{1,3}\\.[0-9]{2}){0,3}",
        behind in "( [a-z0-9]{1,4}){0,4}",
    ) {
        let text = format!("{before}{value}{behind}");
        prop_assert_eq!(how(&text, &value), EXACT);
        let spaced = text.replace(' ', "\n ");
        prop_assert!(how(&spaced, &value.to_uppercase()).is_some());
    }

    #[test]
    fn any_text_and_any_value_are_searched_without_a_panic(
        text in any::<String>(),
        raw in any::<String>(),
        value in any::<String>(),
    ) {
        let _ = found(&text, raw.trim(), &json!(value));
    }
}
