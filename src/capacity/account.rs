//! Counts the memory, in bytes, that uploads and long answers hold, and enforces its limit.
//!
//! A request takes bytes before it allocates the memory. If they do not fit, it is refused at once: waiting would hold
//! the connection of a client that could try another replica. A single atomic counter holds the sum, so concurrent
//! requests cannot exceed the limit.
//!
//! Work for a request that is already here may wait for room instead ([`ByteAccount::hold_until`]). Those who wait are
//! served in their order. The first of them has a claim: uploads, and others who want memory for a worker, leave it the
//! room that it needs. Otherwise a stream of small uploads would take each byte before the waiting one has enough of
//! them. Answers of calls pass the claim ([`ByteAccount::begin_answer`]): a call ends without waiting for anybody, and
//! what its page holds is freed then. If calls had to leave room as well, they would wait for the one that waits for
//! their pages.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use prometheus::IntGauge;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout, timeout_at};

use super::share::{TenantHolder, add};

pub use super::share::{NoRoom, Whose};

/// How long bytes that do not fit wait for those that are given back. It takes milliseconds, unless the host is busy.
const LONGEST_RECLAIM: Duration = Duration::from_secs(1);

/// Holds bytes only to save work later.
pub trait Reclaim: Debug + Send + Sync {
    /// Gives these bytes back.
    fn reclaim(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

/// The number of bytes held, and its limit.
#[derive(Debug)]
pub struct ByteAccount {
    allowed: u64,
    held: AtomicU64,
    /// The bytes that the first of those who wait needs.
    claimed: AtomicU64,
    /// Held by the first of those who wait; the others wait for it in their order.
    turn: Mutex<()>,
    /// Told each time that bytes are given back. Only the first of those who wait listens.
    freed: Notify,
    reclaimable: OnceLock<Weak<dyn Reclaim>>,
    /// Held while bytes are given back, so that all who need them wait for them.
    reclaiming: Mutex<()>,
    shown: IntGauge,
}

/// The claim of the first of those who wait, until this is dropped.
struct Claim<'a> {
    account: &'a ByteAccount,
    bytes: u64,
}

/// Bytes that count as held until this is dropped.
#[derive(Debug)]
#[must_use = "bytes that are dropped are no longer counted"]
pub struct HeldBytes {
    account: Arc<ByteAccount>,
    /// The tenant whose share the bytes count against, if any.
    holder: Option<Arc<TenantHolder>>,
    /// Whether it takes of the room that others wait for, too.
    passes_claims: bool,
    bytes: AtomicU64,
}

impl ByteAccount {
    /// An account of at most `allowed` bytes; `shown` is the gauge of the held bytes.
    pub const fn new(allowed: u64, shown: IntGauge) -> Self {
        Self {
            allowed,
            held: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            turn: Mutex::const_new(()),
            freed: Notify::const_new(),
            reclaimable: OnceLock::new(),
            reclaiming: Mutex::const_new(()),
            shown,
        }
    }

    /// The most that may be held.
    pub const fn allowed(&self) -> u64 {
        self.allowed
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if they do not fit.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Result<HeldBytes, NoRoom> {
        let held = self.holding(0, None, false);
        held.take(bytes)?;
        Ok(held)
    }

    /// An empty reservation, which counts against a tenant's share. [`HeldBytes::take`] grows it.
    pub fn begin_upload(self: &Arc<Self>, holder: Arc<TenantHolder>) -> HeldBytes {
        self.holding(0, Some(holder), false)
    }

    /// An empty reservation for the answer of a call. [`HeldBytes::take`] grows it, also by room that others wait for.
    pub fn begin_answer(self: &Arc<Self>) -> HeldBytes {
        self.holding(0, None, true)
    }

    /// Takes `bytes` even if that exceeds the limit, for work that cannot be refused.
    pub(super) fn hold_beyond(self: &Arc<Self>, bytes: u64) -> HeldBytes {
        self.held.fetch_add(bytes, Ordering::SeqCst);
        self.shown.add(signed(bytes));
        self.holding(bytes, None, false)
    }

    /// Takes `bytes` as soon as they fit, in the order of those who wait. Whoever waits must not hold bytes of this
    /// account that another one who waits needs to get on.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if they did not fit until `until`.
    pub async fn hold_until(
        self: &Arc<Self>,
        bytes: u64,
        until: Instant,
    ) -> Result<HeldBytes, NoRoom> {
        let waiting = async {
            let _turn = self.turn.lock().await;
            let claim = Claim::new(self, bytes);
            if claim.take().is_ok() {
                return;
            }
            // After the claim, so that nobody keeps bytes to save work later once they were asked for.
            self.reclaim().await;
            // A wake-up that comes between the look and the wait is kept by `freed`.
            while claim.take().is_err() {
                self.freed.notified().await;
            }
        };
        if timeout_at(until, waiting).await.is_err() {
            return Err(self.no_room(self.held().saturating_add(bytes), self.allowed));
        }
        Ok(self.holding(bytes, None, false))
    }

    /// Names the one that holds bytes only to save work later. The first one counts.
    pub fn may_reclaim(&self, from: Weak<dyn Reclaim>) {
        let _ = self.reclaimable.set(from);
    }

    /// Has bytes given back that are held only to save work later. Returns when they are, or after a second.
    async fn reclaim(&self) {
        let Some(from) = self.reclaimable.get().and_then(Weak::upgrade) else { return };
        let reclaim = async {
            let _turn = self.reclaiming.lock().await;
            from.reclaim().await;
        };
        let _ = timeout(LONGEST_RECLAIM, reclaim).await;
    }

    /// Whether somebody waits for room.
    pub fn is_waited_for(&self) -> bool {
        self.claimed.load(Ordering::SeqCst) > 0
    }

    /// The number of bytes held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst)
    }

    /// The owner of bytes that were taken.
    fn holding(
        self: &Arc<Self>,
        bytes: u64,
        holder: Option<Arc<TenantHolder>>,
        passes_claims: bool,
    ) -> HeldBytes {
        HeldBytes { account: Arc::clone(self), holder, passes_claims, bytes: bytes.into() }
    }

    fn take(&self, bytes: u64, passes_claims: bool) -> Result<(), NoRoom> {
        let claimed = if passes_claims { 0 } else { self.claimed.load(Ordering::SeqCst) };
        self.add(bytes, self.allowed.saturating_sub(claimed))
    }

    fn add(&self, bytes: u64, allowed: u64) -> Result<(), NoRoom> {
        add(&self.held, bytes, allowed)
            .map_err(|(actual, allowed)| self.no_room(actual, allowed))?;
        self.shown.add(signed(bytes));
        Ok(())
    }

    /// The claimed bytes count as held, so that both numbers of the refusal are true.
    const fn no_room(&self, actual: u64, allowed: u64) -> NoRoom {
        let claimed = self.allowed.saturating_sub(allowed);
        let actual = actual.saturating_add(claimed);
        NoRoom { actual, allowed: self.allowed, whose: Whose::Process }
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        self.shown.sub(signed(bytes));
        self.freed.notify_one();
    }
}

impl<'a> Claim<'a> {
    fn new(account: &'a ByteAccount, bytes: u64) -> Self {
        account.claimed.store(bytes, Ordering::SeqCst);
        Self { account, bytes }
    }

    fn take(&self) -> Result<(), NoRoom> {
        self.account.add(self.bytes, self.account.allowed)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.account.claimed.store(0, Ordering::SeqCst);
    }
}

impl HeldBytes {
    /// The number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The tenant whose share the bytes count against, if any.
    pub fn tenant(&self) -> Option<&str> {
        self.holder.as_ref().map(|holder| holder.tenant())
    }

    /// Moves `bytes` of these, or all if there are fewer, to a reservation of their own.
    pub fn split(&mut self, bytes: u64) -> Self {
        let own = self.bytes.get_mut();
        let bytes = bytes.min(*own);
        *own -= bytes;
        let (account, holder) = (Arc::clone(&self.account), self.holder.clone());
        Self { account, holder, passes_claims: self.passes_claims, bytes: bytes.into() }
    }

    /// Takes `more` bytes; none of them always fit.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if they do not fit; the bytes held before stay held.
    pub fn take(&self, more: u64) -> Result<(), NoRoom> {
        if let Some(holder) = &self.holder {
            holder.take(more)?;
        }
        let taken = self.account.take(more, self.passes_claims);
        taken.inspect_err(|_| self.give_back_to_holder(more))?;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }

    /// Takes `more` bytes, after others have given back what they hold only to save work, if that is necessary.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if they do not fit even then; the bytes held before stay held.
    pub async fn take_or_reclaim(&self, more: u64) -> Result<(), NoRoom> {
        match self.take(more) {
            Err(NoRoom { whose: Whose::Process, .. }) => {
                self.account.reclaim().await;
                self.take(more)
            }
            taken => taken,
        }
    }

    /// Takes `more` bytes as soon as they fit, as [`ByteAccount::hold_until`] does.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if they did not fit until `until`; the bytes held before stay held.
    pub async fn take_until(&self, more: u64, until: Instant) -> Result<(), NoRoom> {
        if let Some(holder) = &self.holder {
            holder.take(more)?;
        }
        let taken = self.account.hold_until(more, until).await;
        let mut taken = taken.inspect_err(|_| self.give_back_to_holder(more))?;
        self.bytes.fetch_add(std::mem::take(taken.bytes.get_mut()), Ordering::Relaxed);
        Ok(())
    }

    /// Takes `more` bytes even if that exceeds the limit, for a result that is paid for. Only for bytes that count
    /// against no tenant.
    pub fn take_beyond(&self, more: u64) {
        let mut taken = self.account.hold_beyond(more);
        self.bytes.fetch_add(std::mem::take(taken.bytes.get_mut()), Ordering::Relaxed);
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&self, bytes: u64) {
        let freed = self.bytes.fetch_min(bytes, Ordering::Relaxed).saturating_sub(bytes);
        self.account.give_back(freed);
        self.give_back_to_holder(freed);
    }

    fn give_back_to_holder(&self, bytes: u64) {
        if let Some(holder) = &self.holder {
            holder.give_back(bytes);
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.account.give_back(bytes);
        self.give_back_to_holder(bytes);
    }
}

/// No more than [`ByteAccount::allowed`], which is far below the largest number.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::super::share::{Share, Shares};
    use super::*;

    fn account(allowed: u64) -> Arc<ByteAccount> {
        Arc::new(ByteAccount::new(allowed, IntGauge::new("held", "held").unwrap()))
    }

    const fn no_room(actual: u64) -> NoRoom {
        NoRoom { actual, allowed: 100, whose: Whose::Process }
    }

    fn held(account: &ByteAccount) -> u64 {
        let held = account.held.load(Ordering::Relaxed);
        assert_eq!(i64::try_from(held), Ok(account.shown.get()), "the gauge shows what is held");
        held
    }

    fn upload(
        account: &Arc<ByteAccount>,
        holder: Arc<TenantHolder>,
        bytes: u64,
    ) -> Result<HeldBytes, NoRoom> {
        let held = account.begin_upload(holder);
        held.take(bytes).map(|()| held)
    }

    #[test]
    fn what_fits_to_the_byte_is_taken_and_one_byte_more_is_refused_with_both_numbers() {
        let account = account(100);
        let first = account.hold(60).unwrap();
        assert_eq!(account.hold(41).unwrap_err(), no_room(101));
        assert_eq!(first.take(41), Err(no_room(101)));
        first.take(40).unwrap();
        assert_eq!(held(&account), 100);
        drop(first);
        assert_eq!(held(&account), 0);
    }

    #[test]
    fn what_does_not_fit_into_all_is_not_counted_against_a_tenant_either() {
        let account = account(100);
        let shares = Arc::new(Shares::new(Share { requests: 1, bytes: 60 }, true));
        let others = account.hold(50).unwrap();
        let held = upload(&account, shares.of("a"), 20).unwrap();
        assert_eq!(held.take(31), Err(no_room(101)));
        drop(others);
        let refused = held.take(41).unwrap_err();
        assert_eq!((refused.whose, refused.actual, refused.allowed), (Whose::Tenant, 61, 60));
        held.take(40).unwrap();
        drop(held);
        assert!(upload(&account, shares.of("a"), 60).is_ok());
    }

    #[test]
    fn a_number_that_would_wrap_is_refused() {
        let account = account(100);
        let _held = account.hold(1).unwrap();
        assert!(account.hold(u64::MAX).is_err());
    }

    fn soon() -> Instant {
        Instant::now() + std::time::Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_get_room_in_their_order_when_it_is_given_back() {
        let account = account(100);
        let first = account.hold(80).unwrap();
        let mut large = Box::pin(account.hold_until(90, soon()));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(account.hold_until(10, soon()));
        assert!(small.as_mut().now_or_never().is_none(), "it would fit, and is not its turn");
        drop(first);
        let large = large.now_or_never().unwrap().unwrap();
        let small = small.now_or_never().unwrap().unwrap();
        assert_eq!((large.bytes(), small.bytes(), held(&account)), (90, 10, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_who_does_not_wait_takes_what_another_waits_for() {
        let account = account(100);
        let first = account.hold(50).unwrap();
        let mut waiting = Box::pin(account.hold_until(60, soon()));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(account.is_waited_for());
        assert_eq!(account.hold(1).unwrap_err(), no_room(111));
        assert!(account.hold(0).is_ok(), "a request without a body takes nothing");
        drop(waiting);
        assert!(!account.is_waited_for());
        assert!(account.hold(50).is_ok());
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_the_room_that_a_page_waits_for_and_the_page_gets_it_afterwards() {
        let account = account(100);
        let page = account.hold(50).unwrap();
        let mut waiting = Box::pin(account.hold_until(60, soon()));
        assert!(waiting.as_mut().now_or_never().is_none());
        let answer = account.begin_answer();
        answer.take(50).unwrap();
        assert_eq!(answer.take(1), Err(no_room(101)), "more than all is not passed");
        drop((page, answer));
        assert_eq!(waiting.now_or_never().unwrap().unwrap().bytes(), 60);
    }

    #[test]
    fn nothing_fits_even_where_more_than_allowed_is_held() {
        let account = account(100);
        let shares = Arc::new(Shares::new(Share { requests: 1, bytes: 60 }, false));
        let held = upload(&account, shares.of("a"), 90).unwrap();
        let _beyond = account.hold_beyond(20);
        shares.bind(true);
        assert!(upload(&account, shares.of("a"), 0).is_ok() && account.hold(0).is_ok());
        assert!(held.take(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_is_refused_at_the_deadline_with_both_numbers() {
        let account = account(100);
        let _held = account.hold(70).unwrap();
        assert_eq!(account.hold_until(31, soon()).await.unwrap_err(), no_room(101));
        assert!(account.hold(30).is_ok());
    }

    /// Bytes that are held until somebody needs them.
    #[derive(Debug)]
    struct Kept(std::sync::Mutex<Option<HeldBytes>>);

    impl Reclaim for Kept {
        fn reclaim(self: Arc<Self>) -> BoxFuture<'static, ()> {
            drop(self.0.lock().unwrap().take());
            std::future::ready(()).boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_gets_the_bytes_that_are_held_only_to_save_work() {
        let account = account(100);
        let kept = Arc::new(Kept(Some(account.hold(60).unwrap()).into()));
        let kept: Arc<dyn Reclaim> = kept;
        account.may_reclaim(Arc::downgrade(&kept));
        let upload = account.hold(0).unwrap();
        assert_eq!(upload.take(41), Err(no_room(101)));
        upload.take_or_reclaim(40).await.unwrap();
        assert_eq!(held(&account), 100, "nothing is given back for what fits");
        assert_eq!(upload.take_or_reclaim(61).await, Err(no_room(101)));
        assert_eq!(held(&account), 40);
        upload.take_or_reclaim(60).await.unwrap();
    }

    #[test]
    fn a_part_that_is_split_off_is_given_back_by_itself() {
        let account = account(100);
        let mut whole = account.hold(60).unwrap();
        let part = whole.split(20);
        assert_eq!((whole.bytes(), part.bytes(), held(&account)), (40, 20, 60));
        drop(whole);
        assert_eq!(held(&account), 20);
        drop(part);
        assert_eq!(held(&account), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_shrinks_at_once_and_grows_when_there_is_room() {
        let account = account(100);
        let page = account.hold(60).unwrap();
        page.shrink_to(70);
        assert_eq!(held(&account), 60);
        page.shrink_to(20);
        assert_eq!((page.bytes(), held(&account)), (20, 20));
        let other = account.hold(50).unwrap();
        assert_eq!(page.take_until(31, soon()).await.unwrap_err(), no_room(101));
        let mut growing = Box::pin(page.take_until(40, soon()));
        assert!(growing.as_mut().now_or_never().is_none());
        drop(other);
        growing.now_or_never().unwrap().unwrap();
        assert_eq!((page.bytes(), held(&account)), (60, 60));
        drop(page);
        assert_eq!(held(&account), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hold(u64),
        Take(usize, u64),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60_u64).prop_map(Step::Hold),
            (any::<usize>(), 0..60_u64).prop_map(|(which, more)| Step::Take(which, more)),
            any::<usize>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn no_order_of_steps_brings_it_over_the_limit_and_all_is_given_back(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let account = account(100);
            let mut requests: Vec<(HeldBytes, u64)> = Vec::new();
            for step in steps {
                let before: u64 = requests.iter().map(|(_, bytes)| bytes).sum();
                match step {
                    Step::Hold(bytes) => match account.hold(bytes) {
                        Ok(held) => requests.push((held, bytes)),
                        Err(_) => prop_assert!(before + bytes > 100),
                    },
                    Step::Take(which, more) if !requests.is_empty() => {
                        let which = which % requests.len();
                        match requests[which].0.take(more) {
                            Ok(()) => requests[which].1 += more,
                            Err(_) => prop_assert!(before + more > 100),
                        }
                    }
                    Step::Drop(which) if !requests.is_empty() => {
                        drop(requests.swap_remove(which % requests.len()));
                    }
                    Step::Take(..) | Step::Drop(_) => {}
                }
                let sum: u64 = requests.iter().map(|(_, bytes)| bytes).sum();
                prop_assert!(sum <= 100);
                prop_assert_eq!(held(&account), sum);
            }
            drop(requests);
            prop_assert_eq!(held(&account), 0);
        }
    }

    #[test]
    fn threads_that_take_at_once_do_not_exceed_it_together() {
        let account = account(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in 1..2000 {
                        let _held = account.hold(bytes % 700);
                        assert!(account.held.load(Ordering::Relaxed) <= 1000);
                    }
                });
            }
        });
        assert_eq!(held(&account), 0);
    }
}
