//! Checks the arithmetic of receipts and invoices.
//!
//! Members are recognised by their names, in English, German, French, Spanish and Chinese. A check is told only if the
//! values of all its parts were found in the text:
//!
//! - [`SumRule::LineAmount`]: quantity times unit price is the amount of a line.
//! - [`SumRule::ItemsSum`]: the amounts of all lines are the subtotal, or the total if there is no subtotal.
//! - [`SumRule::Total`]: subtotal, tax, charges and discounts are the total.
//!
//! Receipts differ in whether prices include the tax, and in whether the subtotal is the one before or after discounts.
//! A sum holds if it is right in one of these readings, and the check says in which. If it is right in none, the check
//! has the numbers of the plain one.
//!
//! A sum is called wrong only if that is certain. Nothing is said of a sum that is right in no reading if the schema
//! has no member that may explain the difference, such as a tax, or if another number of the document does. Lines are
//! not summed if a page, an element or the end of a list is missing, or if they may be those of several documents.
//!
//! The arithmetic is exact. If all parts and the sum have the same number of decimals, nothing is rounded, and they
//! must be equal. Otherwise they may differ by one unit of the sum's last digit. The product of a line may differ by
//! half a unit of the amount's last digit.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::fold::fold;
use super::number::{self, Decimal};
use super::{
    Extraction, ExtractionWarning, FieldError, FieldOrigin, Grounded, SumCheck, SumReading,
    SumRule, child_pointer,
};

/// What a member means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Quantity,
    UnitPrice,
    Amount,
    Subtotal,
    Tax,
    Discount,
    Charge,
    Rounding,
    Total,
}

/// The names of sums, without case, spaces and signs.
const SUM_NAMES: [(Role, &str); 6] = [
    (
        Role::Subtotal,
        "subtotal subtotalamount netamount nettotal net totalbeforetax totalexcludingtax totalexcltax amountbeforetax \
         zwischensumme nettobetrag soustotal totalht subtotalneto baseimponible 小计 不含税金额",
    ),
    (
        Role::Tax,
        "tax taxamount totaltax taxtotal vat vatamount gst gstamount sst salestax servicetax mwst ust steuer tva iva \
         impuesto 税额 增值税 税金",
    ),
    (
        Role::Discount,
        "discount discounts discountamount totaldiscount rebate rabatt remise descuento 折扣 优惠 优惠金额 折扣金额",
    ),
    (
        Role::Charge,
        "servicecharge shipping shippingcost shippingamount delivery deliveryfee tip gratuity versand livraison 服务费 \
         运费 小费",
    ),
    (Role::Rounding, "rounding roundingadjustment roundingadj roundoff rundung arrondi 舍入"),
    (
        Role::Total,
        "total totalamount grandtotal totaldue amountdue totalpayable amounttopay totalincludingtax totalincltax \
         gesamtbetrag gesamtsumme summe totalttc importetotal 总计 总额 合计 总金额 价税合计 应付金额 实付金额",
    ),
];

/// The names of lists of lines.
const LIST_NAMES: &str = "items lineitems lines products goods articles positions positionen articulos 明细 商品 项目 商品明细";

/// The names of the parts of a line.
const LINE_NAMES: [(Role, &str); 3] = [
    (Role::Quantity, "quantity qty count units pieces menge anzahl quantite cantidad 数量"),
    (
        Role::UnitPrice,
        "unitprice price priceperunit unitcost einzelpreis prixunitaire preciounitario 单价",
    ),
    (
        Role::Amount,
        "amount linetotal lineamount total totalprice sum netamount extendedprice betrag gesamtpreis montant importe \
         金额 总价 小计",
    ),
];

/// A number of the document that was found in its text.
#[derive(Debug, Clone)]
struct Part {
    pointer: String,
    value: Exact,
}

/// A decimal number: `digits` times ten to the power of minus `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exact {
    digits: i128,
    scale: u32,
}

impl Extraction {
    /// Checks the sums of the document. The values must have been looked for in its text before.
    ///
    /// `is_whole` says that all pages were read to their ends.
    ///
    /// Takes some milliseconds for thousands of lines, so a server must not call it on the reactor thread.
    pub fn check_sums(&mut self, is_whole: bool) {
        self.checks = Some(self.sum_checks(is_whole));
    }

    fn sum_checks(&self, is_whole: bool) -> Vec<SumCheck> {
        let Value::Object(root) = &self.data else { return Vec::new() };
        let origins = self.fields.iter().map(|(pointer, origin)| (pointer.as_str(), origin));
        let document = Document { extraction: self, origins: origins.collect() };
        let objects = objects_of(root);
        let sums = document.sums(&objects);
        let (lines, list) = document.lines(&objects);
        let mut checks: Vec<SumCheck> = lines.iter().filter_map(Line::check).collect();
        if !sums.are_clear() {
            return checks;
        }
        if let Some(amounts) = list.filter(|list| is_whole && !list.is_empty()) {
            checks.extend(items_sum(&amounts, &sums));
        }
        checks.extend(total(&sums).filter(|check| check.holds || is_whole));
        checks
    }
}

/// The origins of the fields, by pointer.
struct Document<'d> {
    extraction: &'d Extraction,
    origins: HashMap<&'d str, &'d FieldOrigin>,
}

/// The sums of a document.
#[derive(Debug, Default)]
struct Sums {
    parts: HashMap<Role, Vec<Part>>,
    /// Other numbers.
    others: Vec<Exact>,
    /// Whether a value was not found in the text.
    is_doubtful: bool,
}

/// The parts of one line.
#[derive(Debug, Default)]
struct Line {
    quantity: Option<Part>,
    unit_price: Option<Part>,
    amount: Option<Part>,
}

impl Document<'_> {
    /// The sums among the members of these objects.
    fn sums(&self, objects: &[(String, &Map<String, Value>)]) -> Sums {
        let mut sums = Sums::default();
        for (pointer, object) in objects {
            for (name, value) in *object {
                self.add_sum(&mut sums, name, value, child_pointer(pointer, name));
            }
        }
        sums
    }

    fn add_sum(&self, sums: &mut Sums, name: &str, value: &Value, pointer: String) {
        let Some(role) = role_among(&SUM_NAMES, name) else {
            let number = value.as_number().map(|number| Decimal::of_json(&number.to_string()));
            let exact = number.flatten().and_then(|number| Exact::of(&number));
            sums.others.extend(exact.filter(|exact| exact.digits != 0));
            return;
        };
        match self.part(value, pointer) {
            Some(part) => sums.parts.entry(role).or_default().push(part),
            None => sums.is_doubtful |= !value.is_null(),
        }
    }

    /// The lines of the only list of lines, and their amounts if each line has one.
    fn lines(&self, objects: &[(String, &Map<String, Value>)]) -> (Vec<Line>, Option<Vec<Part>>) {
        let members = objects.iter().flat_map(|(pointer, object)| {
            object.iter().map(move |(name, value)| (pointer, name, value))
        });
        let mut lists = members.filter_map(|(pointer, name, value)| {
            let is_list = is_among(LIST_NAMES, &plain(name));
            value.as_array().filter(|_| is_list).map(|items| (child_pointer(pointer, name), items))
        });
        let (Some((list, items)), None) = (lists.next(), lists.next()) else {
            return (Vec::new(), None);
        };
        let lines: Vec<Line> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.line(item, &format!("{list}/{index}")))
            .collect();
        let amounts: Option<Vec<Part>> = lines.iter().map(|line| line.amount.clone()).collect();
        let amounts = amounts.filter(|amounts| self.is_one_list(&list, amounts));
        (lines, amounts)
    }

    /// Whether a list has all its elements, and they are those of one document. Pages of several documents, such as
    /// receipts in one file, disagree.
    fn is_one_list(&self, list: &str, amounts: &[Part]) -> bool {
        let Extraction { validation, warnings, .. } = self.extraction;
        let lacks_some = |error: &FieldError| {
            list.strip_prefix(&error.pointer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let pages = amounts.iter().map(|part| self.origins.get(part.pointer.as_str())?.page);
        let are_of_one_page = pages.collect::<HashSet<_>>().len() < 2;
        let disagree = |warning: &ExtractionWarning| {
            matches!(warning, ExtractionWarning::PagesDisagree { .. })
        };
        !validation.errors.iter().any(lacks_some)
            && (are_of_one_page || !warnings.iter().any(disagree))
    }

    fn line(&self, item: &Value, pointer: &str) -> Line {
        let members = item.as_object().into_iter().flatten();
        let named = members
            .filter_map(|(name, value)| Some((role_among(&LINE_NAMES, name)?, (name, value))));
        let named: Vec<_> = named.collect();
        let part = |wanted: Role| {
            let mut named = named.iter().filter(|(role, _)| *role == wanted);
            let ((_, (name, value)), None) = (named.next()?, named.next()) else { return None };
            self.part(value, child_pointer(pointer, name))
        };
        Line {
            quantity: part(Role::Quantity),
            unit_price: part(Role::UnitPrice),
            amount: part(Role::Amount),
        }
    }

    /// The amount at a place, if it was found in the text and no page has another one there. The model's text has the
    /// zeros at its end, which say how precise it is. A rate of tax or of a discount is no amount.
    fn part(&self, value: &Value, pointer: String) -> Option<Part> {
        let origin = self.origins.get(pointer.as_str())?;
        if !matches!(origin.grounded, Some(Grounded::Exact | Grounded::Normalised)) {
            return None;
        }
        let disagree = |warning: &ExtractionWarning| matches!(warning, ExtractionWarning::PagesDisagree { pointer: place, .. } if *place == pointer);
        if self.extraction.warnings.iter().any(disagree) {
            return None;
        }
        if origin.raw.as_deref().is_some_and(|raw| fold(raw).contains(['%', '‰'])) {
            return None;
        }
        let decimal = match value {
            Value::Number(number) => Decimal::of_json(&number.to_string())?,
            Value::String(text) => number::read(text)?,
            _ => return None,
        };
        let written = origin.raw.as_deref().and_then(number::read);
        let written = written.filter(|written| written.is(&decimal));
        Some(Part { pointer, value: Exact::of(&written.unwrap_or(decimal))? })
    }
}

/// The root and the objects in it, with their pointers.
fn objects_of(root: &Map<String, Value>) -> Vec<(String, &Map<String, Value>)> {
    let inner = root.iter().filter_map(|(name, value)| {
        value.as_object().map(|object| (child_pointer("", name), object))
    });
    std::iter::once((String::new(), root)).chain(inner).collect()
}

/// The meaning of a name.
fn role_among(names: &[(Role, &str)], name: &str) -> Option<Role> {
    let name = plain(name);
    names.iter().find(|(_, known)| is_among(known, &name)).map(|(role, _)| *role)
}

fn is_among(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|known| known == name)
}

/// A name without case, spaces and signs: `sub_total` and `subTotal` are the same.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

impl Sums {
    /// Whether it is known what is added to what: each value was found, and no two members have the same meaning.
    fn are_clear(&self) -> bool {
        let once = [Role::Subtotal, Role::Tax, Role::Discount, Role::Total];
        !self.is_doubtful
            && once.iter().all(|role| self.parts.get(role).is_none_or(|parts| parts.len() == 1))
    }

    /// The only part of a meaning.
    fn only(&self, role: Role) -> Option<&Part> {
        match self.parts.get(&role)?.as_slice() {
            [part] => Some(part),
            _ => None,
        }
    }

    /// Whether other numbers of the document, or charges that are in the sum already, may make a difference.
    fn explain(&self, difference: Exact) -> bool {
        const MOST: usize = 6;
        let all = |role| self.parts.get(&role).into_iter().flatten().map(|part| part.value);
        // A rounding without its sign is wrong by twice its amount.
        let roundings = all(Role::Rounding).filter_map(|value| value.plus(value));
        let others = self.others.iter().copied();
        let terms: Vec<Exact> = others.chain(all(Role::Charge)).chain(roundings).collect();
        if terms.len() > MOST {
            return true;
        }
        let mut left = vec![difference];
        for term in terms {
            let more = left.iter().flat_map(|left| [left.plus(term), left.plus(term.negated())]);
            let more: Vec<Exact> = more.flatten().collect();
            left.extend(more);
        }
        let unit = |scale: u32| Exact { digits: -1, scale };
        let is_none = |rest: &Exact| {
            let distance = Exact { digits: rest.digits.abs(), ..*rest };
            distance.plus(unit(difference.scale)).is_none_or(|over| over.digits <= 0)
        };
        left.iter().any(|left| left != &difference && is_none(left))
    }

    /// The charges that are added in any reading, and roundings with their signs.
    fn charges(&self) -> Vec<&Part> {
        let all = |role| self.parts.get(&role).into_iter().flatten();
        all(Role::Charge).chain(all(Role::Rounding)).collect()
    }
}

impl Line {
    fn check(&self) -> Option<SumCheck> {
        let (quantity, price) = (self.quantity.as_ref()?, self.unit_price.as_ref()?);
        let amount = self.amount.as_ref()?;
        let product = quantity.value.times(price.value)?;
        let unit = amount.value.scale;
        let pointers = [quantity, price, amount].map(|part| part.pointer.clone());
        let tolerance = Exact { digits: 5, scale: unit.checked_add(1)? };
        check(SumRule::LineAmount, SumReading::Plain, product, amount, tolerance, pointers.into())
    }
}

/// Whether the amounts of all lines are the subtotal, or the total. A total may have taxes that the schema does not ask
/// for, so that its lines can be right and not wrong.
fn items_sum(amounts: &[Part], sums: &Sums) -> Option<SumCheck> {
    let parts: Vec<&Part> = amounts.iter().collect();
    match (sums.only(Role::Subtotal), sums.only(Role::Total)) {
        (Some(subtotal), _) => best(SumRule::ItemsSum, &parts, sums, subtotal, Target::Subtotal),
        (None, Some(total)) => {
            best(SumRule::ItemsSum, &parts, sums, total, Target::Total).filter(|check| check.holds)
        }
        (None, None) => None,
    }
}

/// Whether the subtotal with tax, charges and discounts is the total. Without its tax it can be right and not wrong.
fn total(sums: &Sums) -> Option<SumCheck> {
    let (subtotal, total) = (sums.only(Role::Subtotal)?, sums.only(Role::Total)?);
    let others = [Role::Tax, Role::Discount, Role::Charge, Role::Rounding];
    if !others.iter().any(|role| sums.parts.contains_key(role)) {
        return None;
    }
    best(SumRule::Total, &[subtotal], sums, total, Target::Total)
        .filter(|check| check.holds || sums.only(Role::Tax).is_some())
}

/// What parts make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Tax and charges come later. If prices include the tax, the subtotal is less by it.
    Subtotal,
    /// Tax and charges are added. If prices include the tax, it is not added.
    Total,
}

/// The readings of a sum, each with whether the tax and whether the discount is part of it.
const READINGS: [(SumReading, [bool; 2]); 4] = [
    (SumReading::Plain, [true, true]),
    (SumReading::TaxIncluded, [false, true]),
    (SumReading::DiscountIncluded, [true, false]),
    (SumReading::TaxAndDiscountIncluded, [false, false]),
];

/// The check in the first reading in which it holds, or in the first of all. None if it holds in no reading, but other
/// numbers explain the difference.
fn best(
    rule: SumRule,
    parts: &[&Part],
    sums: &Sums,
    actual: &Part,
    target: Target,
) -> Option<SumCheck> {
    let is_total = target == Target::Total;
    let charges = if is_total { sums.charges() } else { Vec::new() };
    let mut checks = READINGS.into_iter().filter_map(|(reading, is_added)| {
        // What is added to make a total is what is left out of the lines to make a subtotal, and the reverse.
        let [has_tax, has_discount] = is_added.map(|is_added| is_added == is_total);
        let tax = sums.only(Role::Tax).filter(|_| has_tax);
        let discount = sums.only(Role::Discount).filter(|_| has_discount);
        let mut sum = Exact::sum(parts.iter().chain(&charges).map(|part| part.value))?;
        if let Some(tax) = tax {
            sum = sum.plus(if is_total { tax.value } else { tax.value.negated() })?;
        }
        if let Some(discount) = discount {
            // Discounts are written with a minus or without. The amounts of a credit note are negative.
            let least = Exact { digits: -discount.value.digits.abs(), ..discount.value };
            sum = sum.plus(if sum.digits < 0 { least.negated() } else { least })?;
        }
        let all: Vec<&Part> =
            parts.iter().chain(&charges).copied().chain(tax).chain(discount).collect();
        let scale = actual.value.scale;
        let is_rounded = all.iter().any(|part| part.value.scale != scale);
        let tolerance = Exact { digits: i128::from(is_rounded), scale };
        let pointers = all.iter().chain([&actual]).map(|part| part.pointer.clone()).collect();
        check(rule, reading, sum, actual, tolerance, pointers)
    });
    let first = checks.next()?;
    if first.holds {
        return Some(first);
    }
    if let Some(right) = checks.find(|check| check.holds) {
        return Some(right);
    }
    (!sums.explain(number::read(&first.difference).as_ref().and_then(Exact::of)?)).then_some(first)
}

/// Compares a sum with what the document says. It may differ by `tolerance`.
fn check(
    rule: SumRule,
    reading: SumReading,
    expected: Exact,
    actual: &Part,
    tolerance: Exact,
    pointers: Vec<String>,
) -> Option<SumCheck> {
    let difference = actual.value.plus(expected.negated())?;
    let distance = Exact { digits: difference.digits.checked_abs()?, ..difference };
    let holds = tolerance.plus(distance.negated())?.digits >= 0;
    let [expected, actual, difference] =
        [expected, actual.value, difference].map(|number| number.to_string());
    Some(SumCheck { rule, holds, reading, expected, actual, difference, pointers })
}

impl Exact {
    const ZERO: Self = Self { digits: 0, scale: 0 };

    /// None if the number has too many digits.
    fn of(number: &Decimal) -> Option<Self> {
        let (digits, scale) = number.scaled()?;
        Some(Self { digits, scale })
    }

    /// None if the sum has too many digits.
    fn plus(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let at_scale =
            |number: Self| number.digits.checked_mul(10_i128.checked_pow(scale - number.scale)?);
        Some(Self { digits: at_scale(self)?.checked_add(at_scale(other)?)?, scale })
    }

    fn times(self, other: Self) -> Option<Self> {
        let digits = self.digits.checked_mul(other.digits)?;
        Some(Self { digits, scale: self.scale.checked_add(other.scale)? })
    }

    fn sum(mut numbers: impl Iterator<Item = Self>) -> Option<Self> {
        numbers.try_fold(Self::ZERO, Self::plus)
    }

    const fn negated(self) -> Self {
        Self { digits: -self.digits, ..self }
    }
}

impl std::fmt::Display for Exact {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        let digits = format!("{:0>width$}", self.digits.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let point = if fraction.is_empty() { "" } else { "." };
        write!(formatter, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests;
