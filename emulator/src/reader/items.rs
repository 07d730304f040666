//! Line items: the rows of a table that a schema describes by one template object.
//!
//! If a row of headings is found, each following row is cut into columns under them. Otherwise a row that begins with
//! words and ends with an amount is an item. Items end at the sums.

use serde_json::{Map, Value};

use crate::reader::patterns;
use crate::reader::vocabulary::words_of_key;
use crate::sheet::{Row, Sheet, Token, bounds_of, text_of};

/// The most items that are read.
const MOST_ITEMS: usize = 200;

/// The kind of value in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Code,
    Description,
    Quantity,
    UnitPrice,
    Amount,
}

/// A heading and twice the coordinate of its middle.
type Heading = (Column, u32);

/// The items of a sheet in the form of the template.
pub(crate) fn items(sheet: &Sheet, template: &Map<String, Value>) -> Value {
    let header = sheet.rows.iter().enumerate().find_map(|(at, row)| Some((at, headings(row)?)));
    let (first, headings) = header.map_or((0, Vec::new()), |(at, headings)| (at + 1, headings));
    let rows = sheet.rows.iter().skip(first);
    let items: Vec<Value> = rows
        .take_while(|row| headings.is_empty() || !begins_sums(row))
        .filter(|row| !begins_sums(row))
        .filter_map(|row| item(row, &headings))
        .take(MOST_ITEMS)
        .map(|cells| filled(template, &cells))
        .collect();
    Value::Array(items)
}

fn column_named(name: &str) -> Option<Column> {
    Some(match name {
        "code" | "item code" | "sku" | "product code" | "编号" => Column::Code,
        "description" | "item" | "items" | "name" | "product" | "product name" | "item name"
        | "particulars" | "goods" | "service" | "品名" | "名称" | "项目" | "商品" | "商品名称"
        | "货物名称" => Column::Description,
        "quantity" | "qty" | "count" | "数量" => Column::Quantity,
        "unit price" | "price" | "rate" | "u price" | "unit cost" | "单价" => Column::UnitPrice,
        "amount" | "total" | "line total" | "total price" | "total amount" | "sum" | "subtotal"
        | "金额" | "总价" => Column::Amount,
        _ => return None,
    })
}

/// The headings of a row, if at least two are known.
fn headings(row: &Row) -> Option<Vec<Heading>> {
    let mut headings: Vec<Heading> = Vec::new();
    let mut at = 0;
    while at < row.tokens.len() {
        let named = |length: usize| {
            let tokens = row.tokens.get(at..at + length)?;
            let bounds = bounds_of(tokens)?;
            let column = column_named(&crate::reader::lookup::phrase(tokens))?;
            Some((length, (column, bounds.left + bounds.right)))
        };
        match (1..=4).rev().find_map(named) {
            Some((length, heading)) => {
                headings.push(heading);
                at += length;
            }
            None => at += 1,
        }
    }
    // A row with an amount is a sum that happens to use the same words.
    (headings.len() >= 2 && patterns::amounts(&row.text()).is_empty()).then_some(headings)
}

fn begins_sums(row: &Row) -> bool {
    row.tokens.iter().take(3).any(|token| {
        matches!(
            token.folded.as_str(),
            "total"
                | "subtotal"
                | "sub"
                | "tax"
                | "gst"
                | "vat"
                | "cash"
                | "change"
                | "rounding"
                | "balance"
                | "discount"
                | "visa"
                | "mastercard"
                | "小"
                | "合"
        )
    })
}

/// The cells of one row, if it is an item.
fn item(row: &Row, headings: &[Heading]) -> Option<Vec<(Column, String)>> {
    if headings.is_empty() {
        return priced_line(row);
    }
    let mut cells: Vec<(Column, Vec<Token>)> = Vec::new();
    for segment in row.segments() {
        let bounds = bounds_of(segment)?;
        let middle = bounds.left + bounds.right;
        let (column, _) = headings.iter().min_by_key(|(_, heading)| heading.abs_diff(middle))?;
        match cells.iter_mut().find(|(known, _)| known == column) {
            Some((_, tokens)) => tokens.extend_from_slice(segment),
            None => cells.push((*column, segment.to_vec())),
        }
    }
    let has_amount = !patterns::amounts(&row.text()).is_empty();
    let cells: Vec<_> =
        cells.into_iter().map(|(column, tokens)| (column, text_of(&tokens))).collect();
    (has_amount && cells.len() >= 2).then_some(cells)
}

/// A row without headings that reads as words and then an amount.
fn priced_line(row: &Row) -> Option<Vec<(Column, String)>> {
    let text = row.text();
    let amount = patterns::amounts(&text).pop()?;
    let last = row.tokens.iter().rposition(|token| token.text.contains(&amount))?;
    let is_number = |token: &&Token| token.text.chars().all(|c| !c.is_alphabetic());
    let words: Vec<Token> = row.tokens[..last].to_vec();
    let trailing = words.iter().rev().take_while(is_number).count();
    let description = text_of(&words[..words.len() - trailing]);
    let letters = description.chars().filter(|character| character.is_alphabetic()).count();
    let is_item = letters >= 3 && !row.tokens.iter().any(crate::reader::lookup::is_colon);
    is_item.then(|| vec![(Column::Description, description), (Column::Amount, amount)])
}

/// The template with the cells filled in; a field without a cell is null.
fn filled(template: &Map<String, Value>, cells: &[(Column, String)]) -> Value {
    let cell = |key: &str| {
        let column = column_named(&words_of_key(key))?;
        let found = |wanted: Column| cells.iter().find(|(column, _)| *column == wanted);
        let (_, text) = found(column).or_else(|| {
            // The only price of a line may have either name.
            let other = match column {
                Column::UnitPrice => Column::Amount,
                _ => return None,
            };
            found(other)
        })?;
        Some(match column {
            Column::UnitPrice | Column::Amount => patterns::amounts(text).pop()?,
            Column::Quantity => patterns::number(text)?,
            Column::Code | Column::Description => text.clone(),
        })
    };
    let leaf = |key: &String| cell(key).map_or(Value::Null, Value::String);
    Value::Object(template.keys().map(|key| (key.clone(), leaf(key))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sheet::tests::typed;

    fn read(text: &str, template: &Value) -> Value {
        items(&Sheet::of([&typed(text)]), template.as_object().unwrap())
    }

    #[test]
    fn rows_under_headings_are_cut_into_their_columns() {
        let text = "Description       Qty     Price     Amount\n\
                    Blue pen            2      1.50       3.00\n\
                    Paper A4            1     12.00      12.00\n\
                    Total                                15.00";
        let template = json!({"description": "", "quantity": "", "unitPrice": "", "amount": ""});
        assert_eq!(
            read(text, &template),
            json!([
                {"description": "Blue pen", "quantity": "2", "unitPrice": "1.50", "amount": "3.00"},
                {"description": "Paper A4", "quantity": "1", "unitPrice": "12.00", "amount": "12.00"}
            ])
        );
    }

    #[test]
    fn without_headings_a_line_that_ends_with_an_amount_is_an_item() {
        let text = "THE SHOP\nBlue pen 3.00\nTotal 3.00";
        let expected = json!([{"name": "Blue pen", "price": "3.00", "colour": null}]);
        assert_eq!(read(text, &json!({"name": "", "price": "", "colour": ""})), expected);
    }
}
