//! The controller: how an audit changes the factor of a tenant.
//!
//! An integral controller on a logarithmic scale: each audit multiplies the factor by `exp(gain * (aim - agreement))`.
//! The factor rests where the mean of `aim - agreement` is zero, that is, where the mean agreement is the aim. So no
//! single page must reach the aim, the noise of single readings averages out, and nothing needs to be known of how the
//! agreement depends on the height, except that it does not fall when the height rises.
//!
//! Full agreement lowers the factor by a fiftieth; the gain follows from that and the aim. A rise is bounded to a
//! quarter, so that one bad audit, such as an answer that broke off, has a bounded effect. It makes the mean a little
//! lower than the aim where some audits agree by far less.
//!
//! The step of a text of a few runs is a part of that, on the same scale: its weight. So what rests at the aim is the
//! mean that counts each audit by its weight, and one digit that is read otherwise on a page with hardly any text
//! raises the factor by 2.3 % at most.

use super::agreement::{Agreement, Weight};
use crate::units::Share;

/// Bounds of the gain. With a larger one, noise would move the factor; with a smaller one, nothing would.
const GAINS: [f64; 2] = [0.1, 2.0];

/// By how much the height that text keeps is raised for a tenant: from 1 to 4, in thousandths.
///
/// It is never lower than 1: the height of the settings is what the operator wants to be kept at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeightFactor(u16);

/// What one audit multiplies a factor by, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step(u32);

impl HeightFactor {
    /// The height as it is in the settings.
    pub const ONE: Self = Self(1000);

    /// The largest factor. With it, a height of 16 pixels becomes 64: text of that size is legible to any reader, so
    /// what still disagrees has other reasons.
    pub const MOST: Self = Self(4000);

    /// The factor of so many thousandths, or the nearest that there is.
    pub fn from_thousandths(thousandths: i64) -> Self {
        let bounded = thousandths.clamp(Self::ONE.0.into(), Self::MOST.0.into());
        Self(u16::try_from(bounded).unwrap_or(Self::MOST.0))
    }

    /// The number of thousandths.
    pub const fn thousandths(self) -> u16 {
        self.0
    }

    /// The factor after a step.
    #[must_use]
    pub fn after(self, step: Step) -> Self {
        let raised = i64::from(self.0) * i64::from(step.0) + i64::from(Step::SAME.0 / 2);
        Self::from_thousandths(raised / i64::from(Step::SAME.0))
    }
}

impl Default for HeightFactor {
    fn default() -> Self {
        Self::ONE
    }
}

impl Step {
    /// No change.
    const SAME: Self = Self(1_000_000);

    /// The largest rise.
    const RISE: Self = Self(1_250_000);

    /// The largest fall: that of an audit whose texts agree in all.
    const FALL: Self = Self(980_000);

    /// The step after an audit with this agreement, where `aim` is wanted. An aim of 1 never lowers.
    pub fn after(Agreement { share, weight }: Agreement, aim: Share) -> Self {
        let whole = Self::of_long_text(share, aim);
        if weight == Weight::FULL { whole } else { whole.part(weight) }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product is between 0.1 and 7.4 millions"
    )]
    fn of_long_text(agreement: Share, aim: Share) -> Self {
        let (aim, same) = (f64::from(aim), f64::from(Self::SAME.0));
        let gain = -(f64::from(Self::FALL.0) / same).ln() / (1.0 - aim);
        let [least, most] = GAINS;
        let ratio = (gain.clamp(least, most) * (aim - f64::from(agreement))).exp();
        let millionths = (ratio * same).round() as u32;
        Self(millionths.clamp(Self::FALL.0, Self::RISE.0))
    }

    /// The part of the step that a text of this weight makes: ten steps of a weight of one make the whole.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the root of a step is nearer to one"
    )]
    fn part(self, weight: Weight) -> Self {
        let same = f64::from(Self::SAME.0);
        let tenths = f64::from(weight.tenths()) / f64::from(Weight::FULL.tenths());
        Self(((f64::from(self.0) / same).powf(tenths) * same).round() as u32)
    }

    /// The number of millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::{Random, SeededRandom};

    const AIMS: [f64; 2] = [0.95, 0.98];

    /// How far the mean agreement of some hundred audits may be from the aim. Readings that break off are most of it: a
    /// step counts only a part of what they lose.
    const TOLERANCE: f64 = 0.015;

    fn share(number: f64) -> Share {
        Share::try_from(number).unwrap()
    }

    fn whole(share: Share) -> Agreement {
        Agreement { share, weight: Weight::FULL }
    }

    fn any_agreement() -> impl Strategy<Value = Agreement> {
        (any_share(), 1_usize..20)
            .prop_map(|(share, runs)| Agreement { share, weight: Weight::of_runs(runs).unwrap() })
    }

    fn any_share() -> impl Strategy<Value = Share> {
        (0_u32..=1_000_000).prop_map(|millionths| Share::from_millionths(millionths).unwrap())
    }

    #[test]
    fn an_audit_that_meets_the_aim_changes_nothing_and_full_agreement_lowers_by_a_fiftieth() {
        for aim in AIMS.map(share) {
            assert_eq!(Step::after(whole(aim), aim), Step::SAME);
            assert_eq!(Step::after(whole(Share::ALL), aim), Step::FALL);
        }
        assert_eq!(Step::after(whole(Share::ALL), Share::ALL), Step::SAME);
    }

    #[test]
    fn ten_texts_of_one_run_change_as_much_as_one_text_of_ten() {
        for (lost, of_ten) in [(Share::NONE, Step::RISE), (Share::ALL, Step::FALL)] {
            let weight = Weight::of_runs(1).unwrap();
            let step = Step::after(Agreement { share: lost, weight }, share(0.95));
            let ten = (f64::from(step.0) / 1e6).powi(10);
            assert!((ten - f64::from(of_ten.0) / 1e6).abs() < 1e-5, "{ten}");
        }
    }

    proptest! {
        #[test]
        fn a_factor_stays_within_its_bounds(
            start in any::<i64>(),
            audits in prop::collection::vec((any_agreement(), any_share()), 0..50),
        ) {
            let mut factor = HeightFactor::from_thousandths(start);
            for (agreement, aim) in audits {
                factor = factor.after(Step::after(agreement, aim));
                prop_assert!((HeightFactor::ONE..=HeightFactor::MOST).contains(&factor));
            }
        }

        #[test]
        fn one_audit_raises_by_a_quarter_at_most_and_lowers_by_a_fiftieth_at_most(
            start in 1000_i64..=4000,
            agreement in any_agreement(),
            aim in any_share(),
        ) {
            let before = HeightFactor::from_thousandths(start);
            let after = before.after(Step::after(agreement, aim));
            let (before, after) = (u32::from(before.0), u32::from(after.0));
            // Half a thousandth is lost by rounding.
            prop_assert!(after * 100 <= before * 125 + 50, "{before} to {after}");
            prop_assert!(after * 100 + 50 >= before * 98, "{before} to {after}");
        }

        #[test]
        fn less_agreement_never_lowers_more(
            start in 1000_i64..=4000, low in any_agreement(), high in any_share(), aim in any_share(),
        ) {
            prop_assume!(low.share <= high);
            let high = Agreement { share: high, ..low };
            let factor = HeightFactor::from_thousandths(start);
            let after = |agreement| factor.after(Step::after(agreement, aim));
            prop_assert!(after(low) >= after(high));
        }
    }

    /// A reader that agrees with itself by a noisy and monotone function of the height that text keeps: nothing at a
    /// third of `needed`, about the aim at `needed`, all at twice as much. One reading in fifty breaks off. A share of
    /// the pages has one to nine runs, each of which is found or not.
    struct Reader {
        chance: SeededRandom,
        /// Pixels.
        needed: f64,
        short_pages: f64,
    }

    /// The height in the settings, a third of what the reader needs.
    const CONFIGURED: f64 = 4.0;
    const NEEDED: f64 = 12.0;

    impl Reader {
        fn chance(&self) -> f64 {
            f64::from((self.chance.next_u64() >> 32) as u32) / f64::from(u32::MAX)
        }

        fn agreement_at(&self, height: f64) -> Agreement {
            // A logistic curve that is 0.985 at the needed height.
            let clear = 1.0 / (1.0 + (-(height / self.needed - 0.6) * 10.5).exp());
            if self.chance() < self.short_pages {
                let runs = 1 + usize::try_from(self.chance.next_u64() % 9).unwrap();
                let found = (0..runs).filter(|_| self.chance() < clear).count();
                let share = share(
                    f64::from(u8::try_from(found).unwrap())
                        / f64::from(u8::try_from(runs).unwrap()),
                );
                return Agreement { share, weight: Weight::of_runs(runs).unwrap() };
            }
            let noise = (self.chance() + self.chance() - 1.0) * 0.03;
            let is_broken = self.chance() < 0.02;
            whole(share(if is_broken { clear / 2.0 } else { (clear + noise).clamp(0.0, 1.0) }))
        }
    }

    /// The mean agreement by weight and the mean factor of the last half of `audits`, from `start` on. Each step is
    /// computed from the document's agreement at a factor that is `lag` audits old, as replicas read it, and applied to
    /// the present one.
    fn simulated(
        reader: &Reader,
        aim: f64,
        start: HeightFactor,
        audits: u32,
        lag: usize,
    ) -> (f64, f64, HeightFactor) {
        let mut history = vec![start];
        let (mut agreements, mut weights, mut factors) = (0.0, 0.0, 0.0);
        for audit in 0..audits {
            let seen = history[history.len().saturating_sub(1 + lag)];
            let agreement = reader.agreement_at(CONFIGURED * f64::from(seen.0) / 1000.0);
            let now = *history.last().unwrap();
            history.push(now.after(Step::after(agreement, share(aim))));
            if audit >= audits / 2 {
                let weight = f64::from(agreement.weight.tenths());
                agreements += weight * f64::from(agreement.share);
                weights += weight;
                factors += f64::from(seen.0) / 1000.0;
            }
        }
        let counted = f64::from(audits - audits / 2);
        (agreements / weights, factors / counted, *history.last().unwrap())
    }

    /// Every aim with twenty readers, without short pages and where each third page is short.
    fn each(promise: impl Fn(f64, Reader)) {
        for (aim, short_pages) in AIMS.into_iter().flat_map(|aim| [(aim, 0.0), (aim, 0.33)]) {
            for seed in 0..20 {
                println!("aim {aim}, seed {seed}, {short_pages} short");
                let chance = SeededRandom::new(seed);
                promise(aim, Reader { chance, needed: NEEDED, short_pages });
            }
        }
    }

    #[test]
    fn a_height_that_is_a_third_of_what_is_needed_rises_until_the_aim_is_kept() {
        each(|aim, reader| {
            let (agreement, factor, _) = simulated(&reader, aim, HeightFactor::ONE, 600, 0);
            assert!((agreement - aim).abs() < TOLERANCE, "{agreement}");
            assert!((2.5..4.0).contains(&factor), "{factor}");
        });
    }

    #[test]
    fn a_height_far_too_small_is_left_within_ten_audits() {
        each(|aim, reader| {
            let (_, _, factor) = simulated(&reader, aim, HeightFactor::ONE, 10, 0);
            let kept = CONFIGURED * f64::from(factor.0) / 1000.0;
            assert!(kept > 0.6 * NEEDED, "{kept} pixels");
        });
    }

    #[test]
    fn two_replicas_that_see_each_others_steps_late_end_at_the_same_height() {
        each(|aim, reader| {
            let (agreement, factor, _) = simulated(&reader, aim, HeightFactor::ONE, 600, 8);
            assert!((agreement - aim).abs() < TOLERANCE, "{agreement}");
            assert!((2.5..4.0).contains(&factor), "{factor}");
        });
    }

    #[test]
    fn pages_with_hardly_any_text_alone_lead_to_the_aim_too() {
        each(|aim, reader| {
            let short = Reader { short_pages: 1.0, ..reader };
            let (agreement, factor, _) = simulated(&short, aim, HeightFactor::ONE, 2_000, 0);
            assert!((agreement - aim).abs() < TOLERANCE, "{agreement}");
            assert!((2.0..4.0).contains(&factor), "{factor}");
        });
    }

    #[test]
    fn the_height_falls_again_when_the_documents_become_easier() {
        each(|aim, reader| {
            let (_, hard, raised) = simulated(&reader, aim, HeightFactor::ONE, 300, 0);
            let easier = Reader { needed: NEEDED / 2.0, ..reader };
            let (agreement, easy, _) = simulated(&easier, aim, raised, 1200, 0);
            assert!(easy < 0.75 * hard, "{hard} to {easy}");
            assert!((agreement - aim).abs() < TOLERANCE, "{agreement}");
        });
    }
}
