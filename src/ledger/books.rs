//! The rules of posting: how an operation changes the accounts.
//!
//! The module is pure and synchronous. Within one transaction a store reads the rows that a batch touches, posts the
//! batch here, and writes the changed rows back. So the rules exist once for all databases, and the simulation of
//! `tests.rs` runs the code of production.
//!
//! Every operation names its entry, and posting it a second time changes nothing. So the writer simply posts a batch
//! again if its answer was lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::civil::Date;
use uuid::Uuid;

use super::account::{Account, AccountKey, Balances, Unit};
use super::budget::{BudgetExceeded, Budgets};
use super::window::{Period, Window};
use crate::units::{Currency, Money, Usage};

/// The most that one call may cost its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The tenant that pays.
    pub tenant: Arc<str>,
    /// The id of the caller's key; none if unknown.
    pub key: Option<Arc<str>>,
    /// The model that is called.
    pub model: Arc<str>,
    /// The most tokens that may be billed.
    pub bound: Usage,
    /// The cost of these tokens.
    pub cost: Money,
    /// The currency of the cost.
    pub currency: Currency,
}

impl Charge {
    /// The same charge without any amount.
    fn of_nothing(&self) -> Self {
        Self { bound: Usage::default(), cost: Money::ZERO, ..self.clone() }
    }
}

/// The upstream's bill for one call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bill {
    /// The tokens.
    pub usage: Usage,
    /// Their cost by the price list.
    pub cost: Money,
    /// The upstream's own id of the answer, by which its bill can be checked.
    pub request_id: Option<String>,
    /// The endpoint of the upstream where the call was made; none if unknown.
    pub endpoint: Option<Arc<str>>,
}

/// The state of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryState {
    /// Its bound is held.
    Open,
    /// The upstream's bill is known and counted.
    Settled,
    /// Nothing was billed; the bound was released.
    Released,
    /// The bill is unknown; the bound is counted as if it had been billed.
    Unverified,
}

impl EntryState {
    /// The state's name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Unverified => "unverified",
        }
    }

    /// The state of a name in a table.
    pub fn named(word: &str) -> Option<Self> {
        [Self::Open, Self::Settled, Self::Released, Self::Unverified]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// One call in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The entry's id.
    pub id: Uuid,
    /// The instance that made it and must end it.
    pub instance: Uuid,
    /// Its bound and its tenant.
    pub charge: Charge,
    /// The day that it counts for, whenever it ends.
    pub day: Date,
    /// Its state.
    pub state: EntryState,
    /// Its bill; empty while it is open or after it was released.
    pub bill: Bill,
}

impl Entry {
    /// The time at which the call was asked for, in milliseconds since 1970: its id was made then and begins with it.
    /// `None` for an id that this program did not make.
    pub fn asked_at(&self) -> Option<i64> {
        let (seconds, nanos) = self.id.get_timestamp()?.to_unix();
        let milliseconds = seconds.checked_mul(1_000)?.checked_add(u64::from(nanos / 1_000_000))?;
        i64::try_from(milliseconds).ok()
    }
}

/// One change of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Hold a bound, if the budgets have room for it.
    Reserve {
        /// The id of the new entry.
        id: Uuid,
        /// The instance that will end it.
        instance: Uuid,
        /// The bound.
        charge: Charge,
        /// The tenant's budgets.
        budgets: Budgets,
    },
    /// Count the billed amount.
    Settle {
        /// The entry.
        id: Uuid,
        /// The billed amount.
        bill: Bill,
    },
    /// Count a bill that exceeds the call's maximum. The amount is clamped and marked unverified.
    Clamp {
        /// The entry.
        id: Uuid,
        /// The counted amount; never below the bound.
        bill: Bill,
    },
    /// Count the bound, because the bill is unknown.
    WriteOff {
        /// The entry.
        id: Uuid,
        /// The cost of the bound at the endpoint of the call; the reserved cost if the endpoint is unknown.
        cost: Option<Money>,
        /// The endpoint of the call, if known.
        endpoint: Option<Arc<str>>,
    },
    /// Release the bound, because nothing was billed.
    Release {
        /// The entry.
        id: Uuid,
    },
    /// Void an id whose reservation may still be in flight: release its entry, or insert an empty entry with that id if
    /// there is none.
    Void {
        /// The entry.
        id: Uuid,
        /// The instance that asked for the reservation.
        instance: Uuid,
        /// The charge that it asked for.
        charge: Charge,
    },
    /// Count a call that was not necessary: at no tokens and no cost. It touches no account.
    Note {
        /// The id of the new entry.
        id: Uuid,
        /// The instance that counts it.
        instance: Uuid,
        /// Whose call it is. The amounts do not count.
        charge: Charge,
    },
}

impl Operation {
    /// The entry that the operation is about.
    pub const fn id(&self) -> Uuid {
        match self {
            Self::Reserve { id, .. }
            | Self::Settle { id, .. }
            | Self::Clamp { id, .. }
            | Self::WriteOff { id, .. }
            | Self::Release { id }
            | Self::Void { id, .. }
            | Self::Note { id, .. } => *id,
        }
    }
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The bound is held, under these budgets.
    Reserved(Balances, Budgets),
    /// The bound does not fit; nothing was changed.
    Refused(BudgetExceeded),
    /// The tenant is disabled; nothing was changed.
    Disabled,
    /// The entry was moved to the operation's target state.
    Closed(Box<Entry>, Balances),
    /// Nothing was changed: the entry cannot be moved from its state.
    Unchanged,
    /// There is no such entry.
    Unknown,
    /// The amounts exceed the range of the ledger.
    Uncountable,
}

/// The key of a row of the daily usage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageKey {
    /// The day.
    pub day: Date,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// The currency.
    pub currency: Currency,
}

/// The change of a row of the daily usage. Signed: a bill that arrives after a write-off subtracts the bound again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageChange {
    /// Number of counted calls.
    pub calls: i64,
    /// Number of those calls whose bill is unknown.
    pub unverified_calls: i64,
    /// Image tokens.
    pub image_tokens: i64,
    /// Tokens of prompt and template.
    pub text_tokens: i64,
    /// Tokens that models wrote.
    pub output_tokens: i64,
    /// The part of all these tokens from calls whose bill is unknown.
    pub unverified_tokens: i64,
    /// Money, in billionths.
    pub cost_nanos: i64,
}

impl UsageChange {
    /// Adds a bill, or subtracts it if `sign` is -1. The accounts, which count the same amounts, were checked to hold
    /// them, so no sum overflows.
    fn add(&mut self, bill: &Bill, state: EntryState, sign: i64) {
        let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(sign);
        let counted = [EntryState::Settled, EntryState::Unverified].contains(&state);
        if !counted {
            return;
        }
        let add = |sum: &mut i64, change: i64| *sum = sum.saturating_add(change);
        add(&mut self.calls, sign);
        add(&mut self.image_tokens, signed(bill.usage.image.get()));
        add(&mut self.text_tokens, signed(bill.usage.text.get()));
        add(&mut self.output_tokens, signed(bill.usage.output.get()));
        add(&mut self.cost_nanos, signed(bill.cost.nanos()));
        if state == EntryState::Unverified {
            add(&mut self.unverified_calls, sign);
            add(&mut self.unverified_tokens, signed(bill.usage.total().get()));
        }
    }
}

/// The part of the ledger that a batch touches.
#[derive(Debug, Default)]
pub struct Books {
    /// Budgets from the store, by tenant.
    budgets: HashMap<Arc<str>, Budgets>,
    accounts: BTreeMap<AccountKey, Account>,
    entries: HashMap<Uuid, Entry>,
    changed_accounts: BTreeSet<AccountKey>,
    new_entries: Vec<Uuid>,
    closed_entries: BTreeSet<Uuid>,
    usage: BTreeMap<UsageKey, UsageChange>,
    /// Tenants with a call of this batch that must wait for others to end. Later calls of these tenants wait too, or
    /// small calls would overtake a large one for ever.
    waiting: HashSet<Arc<str>>,
}

/// The rows that a store writes after a batch was posted.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// Accounts with their new counts, in the order of their keys.
    pub accounts: Vec<(&'a AccountKey, &'a Account)>,
    /// New entries. One may have been closed within the batch.
    pub new_entries: Vec<&'a Entry>,
    /// Existing entries that were closed.
    pub closed_entries: Vec<&'a Entry>,
    /// Amounts to add to the daily usage.
    pub usage: Vec<(&'a UsageKey, &'a UsageChange)>,
}

/// The tenants of a batch's reservations whose budgets a store may hold.
pub fn reserving_tenants(batch: &[Operation]) -> BTreeSet<&str> {
    let tenants = batch.iter().filter_map(|operation| match operation {
        Operation::Reserve { charge, budgets, .. } if !budgets.of_file => Some(&*charge.tenant),
        _ => None,
    });
    tenants.collect()
}

/// The accounts that a batch touches, given those of its entries that exist already.
pub fn accounts_of(batch: &[Operation], entries: &[Entry], today: Date) -> BTreeSet<AccountKey> {
    let mut keys = BTreeSet::new();
    for entry in entries {
        keys.extend(keys_of(&entry.charge, entry.day));
    }
    for operation in batch {
        if let Operation::Reserve { charge, .. } = operation {
            keys.extend(keys_of(charge, today));
        }
    }
    keys
}

fn keys_of(charge: &Charge, day: Date) -> impl Iterator<Item = AccountKey> + use<> {
    let (tenant, money) = (Arc::clone(&charge.tenant), Unit::Money(charge.currency));
    Period::ALL.into_iter().flat_map(move |period| {
        let tenant = Arc::clone(&tenant);
        [Unit::Tokens, money].map(|unit| AccountKey {
            tenant: Arc::clone(&tenant),
            window: Window::of(period, day),
            unit,
        })
    })
}

/// A charge's amount in a unit.
pub(super) const fn amount(usage: &Usage, cost: Money, unit: Unit) -> u64 {
    match unit {
        Unit::Tokens => usage.total().get(),
        Unit::Money(_) => cost.nanos(),
    }
}

impl Books {
    /// The books of the rows that were read; a missing account has counted nothing yet.
    pub fn new(
        accounts: impl IntoIterator<Item = (AccountKey, Account)>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Self {
        Self {
            accounts: accounts.into_iter().collect(),
            entries: entries.into_iter().map(|entry| (entry.id, entry)).collect(),
            ..Self::default()
        }
    }

    /// Replaces the budgets of tenants by those from the store. A replica read the budgets in a reservation before the
    /// call began to wait. So a budget that was raised or lowered since applies at the next try, and a tenant that was
    /// disabled is refused.
    #[must_use]
    pub fn with_budgets(mut self, budgets: impl IntoIterator<Item = (Arc<str>, Budgets)>) -> Self {
        self.budgets = budgets.into_iter().collect();
        self
    }

    /// Posts one operation, as of `today`.
    pub fn post(&mut self, operation: &Operation, today: Date) -> Outcome {
        match operation {
            Operation::Reserve { id, instance, charge, budgets } => {
                let stored = self.budgets.get(&charge.tenant).filter(|_| !budgets.of_file);
                let budgets = *stored.unwrap_or(budgets);
                if let Some(entry) = self.entries.get(id) {
                    return Outcome::Reserved(self.balances(&entry.charge, entry.day), budgets);
                }
                if let Some(refusal) = self.refusal(charge, &budgets, today) {
                    return refusal;
                }
                for key in keys_of(charge, today) {
                    let bound = amount(&charge.bound, charge.cost, key.unit);
                    self.account(key).reserve(bound);
                }
                self.enter(*id, *instance, charge.clone(), today, EntryState::Open);
                Outcome::Reserved(self.balances(charge, today), budgets)
            }
            Operation::Settle { id, bill } => self.close(*id, EntryState::Settled, bill.clone()),
            Operation::Clamp { id, bill } => self.close(*id, EntryState::Unverified, bill.clone()),
            Operation::WriteOff { id, cost, endpoint } => {
                let Some(entry) = self.entries.get(id) else { return Outcome::Unknown };
                let Charge { bound, cost: reserved, .. } = entry.charge;
                let cost = cost.unwrap_or(reserved).min(reserved);
                let endpoint = endpoint.clone();
                let bill = Bill { usage: bound, cost, request_id: None, endpoint };
                self.close(*id, EntryState::Unverified, bill)
            }
            Operation::Release { id } => self.close(*id, EntryState::Released, Bill::default()),
            Operation::Void { id, instance, charge } => {
                if self.entries.contains_key(id) {
                    return self.close(*id, EntryState::Released, Bill::default());
                }
                self.enter(*id, *instance, charge.of_nothing(), today, EntryState::Released);
                Outcome::Unchanged
            }
            Operation::Note { id, instance, charge } => {
                if !self.entries.contains_key(id) {
                    self.note(*id, *instance, charge.of_nothing(), today);
                }
                Outcome::Unchanged
            }
        }
    }

    /// Makes an entry that is settled at nothing.
    fn note(&mut self, id: Uuid, instance: Uuid, charge: Charge, today: Date) {
        let (tenant, model) = (Arc::clone(&charge.tenant), Arc::clone(&charge.model));
        let key = UsageKey { day: today, tenant, model, currency: charge.currency };
        self.enter(id, instance, charge, today, EntryState::Settled);
        self.usage.entry(key).or_default().add(&Bill::default(), EntryState::Settled, 1);
    }

    /// Makes a new entry.
    fn enter(&mut self, id: Uuid, instance: Uuid, charge: Charge, day: Date, state: EntryState) {
        let entry = Entry { id, instance, charge, day, state, bill: Bill::default() };
        self.entries.insert(id, entry);
        self.new_entries.push(id);
    }

    /// The reason why a charge cannot be reserved; `None` if every budget has room for it.
    fn refusal(&mut self, charge: &Charge, budgets: &Budgets, today: Date) -> Option<Outcome> {
        if budgets.disabled {
            return Some(Outcome::Disabled);
        }
        let mut held = None;
        for key in keys_of(charge, today) {
            let asked = amount(&charge.bound, charge.cost, key.unit);
            let account = self.accounts.get(&key).copied().unwrap_or_default();
            if !account.can_count(asked) {
                return Some(Outcome::Uncountable);
            }
            let Some(limit) = budgets.limit(key.window.period, key.unit) else { continue };
            let Account { settled, reserved, .. } = account;
            let exceeded = BudgetExceeded {
                window: key.window,
                unit: key.unit,
                limit,
                settled,
                reserved,
                asked,
            };
            if !exceeded.is_held() {
                return Some(Outcome::Refused(exceeded));
            }
            let behind = self.waiting.contains(&charge.tenant);
            if behind || account.committed().saturating_add(asked) > limit {
                held = held.or(Some(exceeded));
            }
        }
        let exceeded = held?;
        self.waiting.insert(Arc::clone(&charge.tenant));
        Some(Outcome::Refused(exceeded))
    }

    /// Moves an entry to its end; [`Outcome::Uncountable`] if its amounts exceed the range of the ledger. A written-off
    /// entry can still be corrected: a real bill replaces the bound, and a known endpoint replaces an unknown one. The
    /// bound never replaces a clamped bill.
    fn close(&mut self, id: Uuid, state: EntryState, bill: Bill) -> Outcome {
        let Some(entry) = self.entries.get(&id) else { return Outcome::Unknown };
        let before = entry.state;
        let from_open = before == EntryState::Open;
        let (spent, counted) = (bill.usage.total(), entry.bill.usage.total());
        let tells_more = state != EntryState::Unverified
            || spent > counted
            || (spent == counted && bill.cost < entry.bill.cost);
        let late = before == EntryState::Unverified && tells_more;
        if !from_open && !late {
            return Outcome::Unchanged;
        }
        let earlier = entry.bill.clone();
        let entry = Entry { state, bill, ..entry.clone() };
        let changed = keys_of(&entry.charge, entry.day).map(|key| {
            let spent = amount(&entry.bill.usage, entry.bill.cost, key.unit);
            let account = self.accounts.get(&key).copied().unwrap_or_default();
            let account = if from_open {
                account.closed(amount(&entry.charge.bound, entry.charge.cost, key.unit), spent)?
            } else {
                account.corrected(amount(&earlier.usage, earlier.cost, key.unit), spent)?
            };
            Some((key, account))
        });
        // Applies all changes or none.
        let Some(changed) = changed.collect::<Option<Vec<_>>>() else {
            return Outcome::Uncountable;
        };
        for (key, account) in changed {
            *self.account(key) = account;
        }
        self.entries.insert(id, entry.clone());
        let usage = self.usage.entry(UsageKey::of(&entry)).or_default();
        usage.add(&earlier, before, -1);
        usage.add(&entry.bill, state, 1);
        self.closed_entries.insert(id);
        let balances = self.balances(&entry.charge, entry.day);
        Outcome::Closed(Box::new(entry), balances)
    }

    fn account(&mut self, key: AccountKey) -> &mut Account {
        self.changed_accounts.insert(key.clone());
        self.accounts.entry(key).or_default()
    }

    fn balances(&self, charge: &Charge, day: Date) -> Balances {
        let of = |period| {
            let window = Window::of(period, day);
            let key = AccountKey { tenant: Arc::clone(&charge.tenant), window, unit: Unit::Tokens };
            self.accounts.get(&key).copied().unwrap_or_default()
        };
        Balances { day, daily: of(Period::Day), monthly: of(Period::Month) }
    }

    /// The rows to write.
    pub fn changes(&self) -> Changes<'_> {
        let new: HashSet<_> = self.new_entries.iter().collect();
        let closed = self.closed_entries.iter().filter(|id| !new.contains(id));
        let changed = self.changed_accounts.iter();
        Changes {
            accounts: changed.filter_map(|key| self.accounts.get_key_value(key)).collect(),
            new_entries: self.new_entries.iter().filter_map(|id| self.entries.get(id)).collect(),
            closed_entries: closed.filter_map(|id| self.entries.get(id)).collect(),
            usage: self.usage.iter().collect(),
        }
    }
}

impl UsageKey {
    fn of(entry: &Entry) -> Self {
        Self {
            day: entry.day,
            tenant: Arc::clone(&entry.charge.tenant),
            model: Arc::clone(&entry.charge.model),
            currency: entry.charge.currency,
        }
    }
}
