//! Values without a label, recognised by position and form: the issuer at the head of a receipt, its address
//! below, the sum among several amounts, the parts of a train ticket.

use crate::engine::is_unspaced;
use crate::reader::concepts::{Kind, Unlabelled};
use crate::reader::lookup::{is_colon, value_of};
use crate::reader::patterns;
use crate::sheet::{Row, Sheet};

/// The number of rows at the top of a page that are searched for its issuer.
const HEADING_ROWS: usize = 8;

/// The number of rows below the issuer that are searched for its address.
const ADDRESS_ROWS: usize = 7;

/// Finds the value of an unlabelled field.
pub(crate) fn unlabelled(sheet: &Sheet, wanted: Unlabelled, kind: Kind) -> Option<String> {
    let first =
        |find: fn(&str) -> Option<String>| sheet.rows.iter().find_map(|row| find(&row.text()));
    match wanted {
        Unlabelled::Nowhere => None,
        Unlabelled::FirstOfItsKind if kind == Kind::Amount => {
            first(|text| patterns::amounts(text).into_iter().next())
        }
        Unlabelled::FirstOfItsKind => sheet.rows.iter().find_map(|row| value_of(&row.text(), kind)),
        Unlabelled::Issuer => Some(sheet.rows[issuer(sheet)?].text()),
        Unlabelled::IssuerAddress => address(sheet),
        Unlabelled::Total => total(sheet),
        Unlabelled::Currency => first(|text| patterns::currency(text).map(str::to_owned)),
        Unlabelled::Train => first(patterns::train),
        Unlabelled::SeatNumber => first(seat),
        Unlabelled::SeatClass => first(seat_class),
        Unlabelled::DepartureStation => stations(sheet).into_iter().next(),
        Unlabelled::ArrivalStation => stations(sheet).into_iter().nth(1),
        Unlabelled::IdentityNumber => first(patterns::identity_number),
    }
}

/// The sum of a receipt: the best match among the rows that contain `total` and an amount.
pub(crate) fn total(sheet: &Sheet) -> Option<String> {
    let mut best: Option<(i32, String)> = None;
    for (at, row) in sheet.rows.iter().enumerate() {
        // The rows below are a table of taxes with totals of its own.
        if row.tokens.iter().any(|token| token.folded == "summary") {
            break;
        }
        let Some(score) = total_score(row) else { continue };
        let own = patterns::amounts(&row.text()).pop();
        // A wide receipt may print the amount slightly below its label.
        let below = || {
            let next = sheet.rows.get(at + 1)?;
            let is_bare = !next.tokens.iter().any(|token| token.text.contains(char::is_alphabetic));
            patterns::amounts(&next.text()).pop().filter(|_| is_bare)
        };
        let Some(amount) = own.or_else(below) else { continue };
        // Of equal values take the last: the total comes after its items.
        if best.as_ref().is_none_or(|(highest, _)| score >= *highest) {
            best = Some((score, amount));
        }
    }
    best.map(|(_, amount)| amount)
}

/// How well a row's words name the sum; `None` if they name something else.
fn total_score(row: &Row) -> Option<i32> {
    let has =
        |words: &[&str]| row.tokens.iter().any(|token| words.contains(&token.folded.as_str()));
    let text = row.text().to_lowercase();
    let is_due = has(&["due", "payable"]) && has(&["amount", "balance", "total"]);
    let is_net = has(&["net", "nett"]) && has(&["amt", "amount"]);
    let names_sum = has(&["total", "totall", "tota1", "t0tal", "tota"])
        || is_due
        || is_net
        || ["总计", "合计", "总金额", "价税合计", "应付", "实付"]
            .iter()
            .any(|word| text.contains(word));
    let names_part = has(&[
        "sub", "subtotal", "qty", "quantity", "item", "items", "discount", "saving", "savings",
        "rounding", "change", "count",
    ]) || text.contains("小计");
    let is_inclusive = text.contains("incl");
    let is_exclusive = text.contains("excl") || has(&["before", "ex"]);
    let is_tax = has(&["gst", "tax", "vat", "sst"]) && !is_inclusive && !is_due;
    if !names_sum || names_part || is_exclusive {
        return None;
    }
    let mut score = 0;
    score += i32::from(
        has(&["grand", "nett", "net", "final", "rounded", "round"])
            || text.contains("after rounding"),
    ) * 3;
    score += i32::from(is_due || has(&["payable"]) || text.contains("价税合计")) * 3;
    score += i32::from(is_inclusive);
    // A net amount is the sum on some receipts and before tax on others, so it is the last choice.
    score -= i32::from(is_net) * 6;
    score += i32::from(has(&["rm", "usd", "amount"]) || text.contains('$'));
    score -= i32::from(is_tax) * 4;
    // Two amounts on one row are columns of a table.
    let amounts = patterns::amounts(&row.text());
    score -= i32::from(amounts.iter().any(|amount| amount != &amounts[0])) * 2;
    Some(score)
}

/// The row at the top that names the issuer of a receipt.
fn issuer(sheet: &Sheet) -> Option<usize> {
    const FORMS: [&str; 20] = [
        "sdn",
        "bhd",
        "ltd",
        "limited",
        "inc",
        "llc",
        "gmbh",
        "corp",
        "corporation",
        "company",
        "enterprise",
        "trading",
        "restaurant",
        "restoran",
        "mart",
        "store",
        "stores",
        "hardware",
        "stationery",
        "cafe",
    ];
    if !looks_like_a_receipt(sheet) {
        return None;
    }
    let is_candidate = |row: &Row| {
        let text = row.text();
        let letters = text.chars().filter(|character| character.is_alphabetic()).count();
        let is_title = row.tokens.iter().all(|token| {
            matches!(
                token.folded.as_str(),
                "tax"
                    | "invoice"
                    | "receipt"
                    | "welcome"
                    | "cash"
                    | "bill"
                    | "official"
                    | "original"
                    | "copy"
            )
        });
        letters >= 3
            && letters * 2 >= text.chars().filter(|character| !character.is_whitespace()).count()
            && !is_title
            && patterns::date(&text).is_none()
    };
    let is_firm = |row: &Row| {
        let text = row.text();
        row.tokens.iter().any(|token| FORMS.contains(&token.folded.as_str()))
            || text.ends_with("公司")
            || text.ends_with('店')
    };
    let heading =
        || sheet.rows.iter().enumerate().take(HEADING_ROWS).filter(|(_, row)| is_candidate(row));
    let firm = heading().find(|(_, row)| is_firm(row) && !row.tokens.iter().any(is_colon));
    firm.or_else(|| heading().next()).map(|(at, _)| at)
}

/// The lines under the issuer that look like an address.
fn address(sheet: &Sheet) -> Option<String> {
    let issuer = issuer(sheet)?;
    let below = sheet.rows.iter().skip(issuer + 1).take(ADDRESS_ROWS);
    let lines: Vec<String> = below
        .skip_while(|row| !looks_like_an_address(row))
        .take_while(|row| !ends_an_address(row))
        .map(Row::text)
        .collect();
    (!lines.is_empty()).then(|| crate::engine::joined(lines.iter().map(String::as_str)))
}

fn looks_like_an_address(row: &Row) -> bool {
    const PARTS: [&str; 22] = [
        "jalan", "jln", "jin", "street", "st", "road", "rd", "avenue", "ave", "lot", "lorong",
        "taman", "block", "blk", "floor", "suite", "no", "drive", "lane", "bandar", "main",
        "kampung",
    ];
    let text = row.text();
    let has_number = text.contains(|character: char| character.is_ascii_digit());
    let has_part = row.tokens.iter().any(|token| {
        let folded = token.folded.as_str();
        PARTS.contains(&folded) || folded.split(['.', ',']).any(|part| PARTS.contains(&part))
    });
    !ends_an_address(row) && ((has_number && has_part) || text.contains(['路', '街', '号']))
}

fn ends_an_address(row: &Row) -> bool {
    const ENDS: [&str; 17] = [
        "tel",
        "telephone",
        "phone",
        "fax",
        "gst",
        "reg",
        "invoice",
        "receipt",
        "date",
        "cashier",
        "email",
        "total",
        "website",
        "tax",
        "bill",
        "hp",
        "cash",
    ];
    let text = row.text();
    row.tokens
        .iter()
        .any(|token| ENDS.contains(&token.folded.split(['.', '/']).next().unwrap_or_default()))
        || patterns::date(&text).is_some()
        || text.contains("电话")
}

fn looks_like_a_receipt(sheet: &Sheet) -> bool {
    const WORDS: [&str; 9] =
        ["receipt", "invoice", "total", "subtotal", "cash", "tax", "gst", "amount", "bill"];
    sheet.rows.iter().any(|row| {
        row.tokens.iter().any(|token| WORDS.contains(&token.folded.as_str()))
            || ["发票", "收据", "小票", "合计"].iter().any(|word| row.text().contains(word))
    })
}

/// A seat in the notation of Chinese tickets: `03车12A号`.
fn seat(text: &str) -> Option<String> {
    let text: String = text.split_whitespace().collect();
    let car = text.find('车')?;
    let start = text[..car].rfind(|character: char| !character.is_ascii_digit());
    let start = start.map_or(0, |at| at + text[at..].chars().next().map_or(0, char::len_utf8));
    let end = car + text[car..].find('号')? + '号'.len_utf8();
    (start < car && end - start <= 24).then(|| text[start..end].to_owned())
}

fn seat_class(text: &str) -> Option<String> {
    const CLASSES: [&str; 10] = [
        "商务座",
        "特等座",
        "一等座",
        "二等座",
        "硬座",
        "软座",
        "硬卧",
        "软卧",
        "高级软卧",
        "无座",
    ];
    let text: String = text.split_whitespace().collect();
    CLASSES.iter().find(|class| text.contains(**class)).map(|class| (*class).to_owned())
}

/// The names before the word for a station, in reading order.
fn stations(sheet: &Sheet) -> Vec<String> {
    let mut stations = Vec::new();
    for row in &sheet.rows {
        let text: String = row.text().split_whitespace().collect();
        for part in text.split_inclusive('站') {
            let Some(before) = part.strip_suffix('站') else { continue };
            let name: String = before
                .chars()
                .rev()
                .take_while(|character| is_unspaced(*character) && character.is_alphabetic())
                .collect();
            let name: String = name.chars().rev().collect();
            if (1..=6).contains(&name.chars().count()) {
                stations.push(format!("{name}站"));
            }
        }
    }
    stations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::tests::typed;

    const RECEIPT: &str = "TEO HENG STATIONERY & BOOKS\n001451637-M\nNO.53, JALAN BESAR\n45600 BATANG BERJUNTAI\n\
        Tel: 03-3271 9922\nTAX INVOICE\nDate 17/01/2018\n1 PEN 26.00\nSub Total 26.00\nTotal GST 1.55\n\
        Total Incl. GST 27.55\nRounding 0.00\nTotal RM 27.55\nCash 30.00\nTotal Items 1.00";

    fn find(wanted: Unlabelled, kind: Kind) -> Option<String> {
        unlabelled(&Sheet::of([&typed(RECEIPT)]), wanted, kind)
    }

    #[test]
    fn the_sum_is_told_from_its_parts() {
        assert_eq!(find(Unlabelled::Total, Kind::Amount).as_deref(), Some("27.55"));
    }

    #[test]
    fn the_heading_of_a_receipt_names_its_issuer_and_where_it_is() {
        let issuer = find(Unlabelled::Issuer, Kind::Text);
        assert_eq!(issuer.as_deref(), Some("TEO HENG STATIONERY & BOOKS"));
        let address = find(Unlabelled::IssuerAddress, Kind::Address);
        assert_eq!(address.as_deref(), Some("NO.53, JALAN BESAR 45600 BATANG BERJUNTAI"));
    }

    #[test]
    fn a_page_that_is_no_receipt_has_no_issuer() {
        let sheet = Sheet::of([&typed("Once upon a time\nthere was a gateway")]);
        assert_eq!(unlabelled(&sheet, Unlabelled::Issuer, Kind::Text), None);
        assert_eq!(unlabelled(&sheet, Unlabelled::Total, Kind::Amount), None);
    }

    #[test]
    fn a_train_ticket_is_read_by_its_forms() {
        let sheet = Sheet::of([&typed(
            "大连北站 D4101 沈阳站\n2013年06月29日18:30开 03车12A号\n￥54.5元 二等座",
        )]);
        let find = |wanted, kind| unlabelled(&sheet, wanted, kind);
        assert_eq!(find(Unlabelled::DepartureStation, Kind::Text).as_deref(), Some("大连北站"));
        assert_eq!(find(Unlabelled::ArrivalStation, Kind::Text).as_deref(), Some("沈阳站"));
        assert_eq!(find(Unlabelled::Train, Kind::Identifier).as_deref(), Some("D4101"));
        assert_eq!(find(Unlabelled::SeatNumber, Kind::Identifier).as_deref(), Some("03车12A号"));
        assert_eq!(find(Unlabelled::SeatClass, Kind::Text).as_deref(), Some("二等座"));
        assert_eq!(find(Unlabelled::FirstOfItsKind, Kind::Amount).as_deref(), Some("54.5"));
    }
}
