//! Decides which instances have expired, by their heartbeats alone.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Heartbeats;

/// The number of consecutive rounds that an instance must have missed when it expires.
pub const MISSED_HEARTBEATS: u32 = 3;

/// The heartbeats of the other instances in the last round.
#[derive(Debug, Default)]
pub struct Expiry {
    seen: BTreeMap<Uuid, Sighting>,
}

#[derive(Debug, Clone, Copy)]
struct Sighting {
    heartbeat: i64,
    missed: u32,
}

impl Expiry {
    /// Takes the `heartbeats` of a round and returns the instances that have expired. An instance that is still there
    /// in the next round is returned again. `own` never expires here.
    pub fn observe(&mut self, heartbeats: Heartbeats, own: Uuid) -> Vec<Uuid> {
        let others = heartbeats.into_iter().filter(|(instance, _)| *instance != own);
        let seen = others.map(|(instance, heartbeat)| {
            let before = self.seen.get(&instance).filter(|before| before.heartbeat == heartbeat);
            let missed = before.map_or(0, |before| before.missed.saturating_add(1));
            (instance, Sighting { heartbeat, missed })
        });
        self.seen = seen.collect();
        let expired = self.seen.iter().filter(|(_, sighting)| sighting.missed >= MISSED_HEARTBEATS);
        expired.map(|(instance, _)| *instance).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    #[test]
    fn an_instance_expires_after_three_missed_heartbeats_and_one_that_beats_does_not() {
        let (mut expiry, living) = (Expiry::default(), Uuid::from_u128(3));
        for round in 0..10 {
            let expired = expiry.observe(vec![(OWN, 0), (OTHER, 5), (living, round)], OWN);
            let expected = if round >= 3 { vec![OTHER] } else { vec![] };
            assert_eq!(expired, expected, "round {round}");
        }
    }

    #[test]
    fn one_heartbeat_begins_the_count_anew() {
        let mut expiry = Expiry::default();
        for heartbeat in [5, 5, 5, 6, 6, 6] {
            assert!(expiry.observe(vec![(OTHER, heartbeat)], OWN).is_empty());
        }
        assert_eq!(expiry.observe(vec![(OTHER, 6)], OWN), [OTHER]);
        assert!(expiry.observe(vec![], OWN).is_empty());
    }
}
