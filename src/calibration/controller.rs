//! The controller: how an audit changes the factor of a tenant.
//!
//! An integral controller on a logarithmic scale: each audit multiplies the factor by `exp(gain * (aim - agreement))`. The
//! factor rests where the mean of `aim - agreement` is zero, that is, where the mean agreement is the aim. So no single
//! page must reach the aim, the noise of single readings averages out, and nothing needs to be known of how the agreement
//! depends on the height, except that it does not fall when the height rises.
//!
//! Full agreement lowers the factor by a fiftieth; the gain follows from that and the aim. A rise is bounded to a quarter,
//! so that one bad audit, such as an answer that broke off, has a bounded effect. It makes the mean a little lower than
//! the aim where some audits agree by far less.

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

    /// The largest factor. With it, a height of 16 pixels becomes 64: text of that size is legible to any reader, so what
    /// still disagrees has other reasons.
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
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product is between 0.1 and 7.4 millions"
    )]
    pub fn after(agreement: Share, aim: Share) -> Self {
        let (aim, same) = (f64::from(aim), f64::from(Self::SAME.0));
        let gain = -(f64::from(Self::FALL.0) / same).ln() / (1.0 - aim);
        let [least, most] = GAINS;
        let ratio = (gain.clamp(least, most) * (aim - f64::from(agreement))).exp();
        let millionths = (ratio * same).round() as u32;
        Self(millionths.clamp(Self::FALL.0, Self::RISE.0))
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

    fn any_share() -> impl Strategy<Value = Share> {
        (0_u32..=1_000_000).prop_map(|millionths| Share::from_millionths(millionths).unwrap())
    }

    #[test]
    fn an_audit_that_meets_the_aim_changes_nothing_and_full_agreement_lowers_by_a_fiftieth() {
        for aim in AIMS.map(share) {
            assert_eq!(Step::after(aim, aim), Step::SAME);
            assert_eq!(Step::after(Share::ALL, aim), Step::FALL);
        }
        assert_eq!(Step::after(Share::ALL, Share::ALL), Step::SAME);
    }

    proptest! {
        #[test]
        fn a_factor_stays_within_its_bounds(
            start in any::<i64>(),
            audits in prop::collection::vec((any_share(), any_share()), 0..50),
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
            agreement in any_share(),
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
            start in 1000_i64..=4000, low in any_share(), high in any_share(), aim in any_share(),
        ) {
            prop_assume!(low <= high);
            let factor = HeightFactor::from_thousandths(start);
            let after = |agreement| factor.after(Step::after(agreement, aim));
            prop_assert!(after(low) >= after(high));
        }
    }

    /// A reader that agrees with itself by a noisy and monotone function of the height that text keeps: nothing at a
    /// third of `needed`, about the aim at `needed`, all at twice as much. One reading in fifty breaks off.
    struct Reader {
        chance: SeededRandom,
        /// Pixels.
        needed: f64,
    }

    /// The height in the settings, a third of what the reader needs.
    const CONFIGURED: f64 = 4.0;
    const NEEDED: f64 = 12.0;

    impl Reader {
        fn chance(&self) -> f64 {
            f64::from((self.chance.next_u64() >> 32) as u32) / f64::from(u32::MAX)
        }

        fn agreement_at(&self, height: f64) -> Share {
            // A logistic curve that is 0.985 at the needed height.
            let clear = 1.0 / (1.0 + (-(height / self.needed - 0.6) * 10.5).exp());
            let noise = (self.chance() + self.chance() - 1.0) * 0.03;
            let is_broken = self.chance() < 0.02;
            share(if is_broken { clear / 2.0 } else { (clear + noise).clamp(0.0, 1.0) })
        }
    }

    /// The mean agreement and the mean factor of the last half of `audits`, from `start` on. Each step is computed from
    /// the document's agreement at a factor that is `lag` audits old, as replicas read it, and applied to the present one.
    fn simulated(
        reader: &Reader,
        aim: f64,
        start: HeightFactor,
        audits: u32,
        lag: usize,
    ) -> (f64, f64, HeightFactor) {
        let mut history = vec![start];
        let (mut agreements, mut factors) = (0.0, 0.0);
        for audit in 0..audits {
            let seen = history[history.len().saturating_sub(1 + lag)];
            let agreement = reader.agreement_at(CONFIGURED * f64::from(seen.0) / 1000.0);
            let now = *history.last().unwrap();
            history.push(now.after(Step::after(agreement, share(aim))));
            if audit >= audits / 2 {
                agreements += f64::from(agreement);
                factors += f64::from(seen.0) / 1000.0;
            }
        }
        let counted = f64::from(audits - audits / 2);
        (agreements / counted, factors / counted, *history.last().unwrap())
    }

    /// Every aim with twenty readers.
    fn each(promise: impl Fn(f64, Reader)) {
        for aim in AIMS {
            for seed in 0..20 {
                println!("aim {aim}, seed {seed}");
                promise(aim, Reader { chance: SeededRandom::new(seed), needed: NEEDED });
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
