//! Limits of the work in flight, so that memory suffices under any load.
//!
//! A process that is killed for lack of memory loses all its work in progress, so the limits are derived from the
//! memory that it may use (`memory`), without that of answers that are kept (`cache`). Half of it is for uploads, a
//! quarter for the buffers of connections, an eighth for the other memory of requests, and the last eighth for the
//! process itself. Each limit is enforced where the memory is taken: bytes by `account`, requests by a semaphore,
//! connections by `places`. `share` limits a single tenant.

pub mod account;
pub mod memory;
pub mod places;
pub mod scratch;
pub mod share;

use std::fmt;

use serde::Deserialize;

use self::memory::MemoryLimit;
use self::share::Share;

/// The buffer of a connection before its request is known, in bytes: the longest head of a request. Keys and options
/// need a fraction of it. hyper's default of some 400 KB would be held before any key is checked.
pub const CONNECTION_BYTES: usize = 64 * 1024;

/// The memory of a request other than its upload, in bytes: its task, its options, the buffers of its connection to the
/// upstream, its answer.
const REQUEST_BYTES: u64 = 256 * 1024;

/// The largest part of the memory for answers that are kept, as its divisor. Requests matter more.
const CACHE_PART: u64 = 16;

/// Upper limits of connections and requests if memory allows more: the load that a process with two cores can handle.
const MOST_CONNECTIONS: u64 = 4096;
const MOST_REQUESTS: u64 = 1024;

/// A configured limit: a number, or `"auto"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceiling {
    /// Derived from the memory.
    Auto,
    /// A fixed number.
    Fixed(u64),
}

/// The limits of the work in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of uploads.
    pub bytes: u64,
    /// Number of requests.
    pub requests: usize,
    /// Number of open connections.
    pub connections: usize,
    /// The share of one tenant in `bytes` and `requests`.
    pub share: Share,
    /// Bytes of answers that are kept for equal requests.
    pub cache: u64,
}

/// The configured limits, and the settings that must be consistent with them.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// `server.max_in_flight_bytes`.
    pub bytes: Ceiling,
    /// `server.max_in_flight_requests`.
    pub requests: Ceiling,
    /// `server.max_connections`.
    pub connections: Ceiling,
    /// `server.max_body_bytes`.
    pub body_bytes: u64,
    /// `server.tenant_share_percent`.
    pub share_percent: u8,
    /// `cache.memory_bytes`.
    pub cache_bytes: u64,
}

/// Limits that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    /// Uploads of the largest allowed size would always be refused.
    #[error(
        "server.max_in_flight_bytes: {bytes}{origin} is below server.max_body_bytes ({body_bytes}), so \
         that the largest upload would never be taken: raise the one or lower the other"
    )]
    BodyTooLarge {
        /// Bytes in flight.
        bytes: u64,
        /// The upload limit.
        body_bytes: u64,
        /// The origin of `bytes`, if it was not set.
        origin: String,
    },
    /// Each request needs a connection, so more requests than connections are impossible.
    #[error(
        "server.max_in_flight_requests: {requests} is above server.max_connections ({connections}), which \
         would bind first"
    )]
    TooManyRequests {
        /// Requests at once.
        requests: u64,
        /// Connections.
        connections: u64,
    },
    /// The system does not report its memory.
    #[error(
        "server.max_in_flight_bytes: is \"auto\", and this system does not tell its memory: set \
         server.max_in_flight_bytes, server.max_in_flight_requests and server.max_connections"
    )]
    UnknownMemory,
}

impl Capacity {
    /// The limits of a process that may use so much memory.
    ///
    /// # Errors
    ///
    /// [`CapacityError`] names the settings that contradict each other.
    pub fn of(wanted: &Wanted, memory: Option<&MemoryLimit>) -> Result<Self, CapacityError> {
        let largest = memory.map_or(u64::MAX, |memory| memory.bytes / CACHE_PART);
        let cache = wanted.cache_bytes.min(largest);
        let by_memory = |ceiling, part: fn(u64) -> u64| match (ceiling, memory) {
            (Ceiling::Fixed(number), _) => Ok(number),
            (Ceiling::Auto, Some(memory)) => Ok(part(memory.bytes - cache).max(1)),
            (Ceiling::Auto, None) => Err(CapacityError::UnknownMemory),
        };
        let bytes = by_memory(wanted.bytes, |memory| memory / 2)?;
        if bytes < wanted.body_bytes {
            let origin = memory.filter(|_| wanted.bytes == Ceiling::Auto);
            let origin = origin.map_or_else(String::new, |memory| format!(" (half of {memory})"));
            return Err(CapacityError::BodyTooLarge {
                bytes,
                body_bytes: wanted.body_bytes,
                origin,
            });
        }
        let connections = by_memory(wanted.connections, |memory| {
            (memory / 4 / CONNECTION_BYTES as u64).min(MOST_CONNECTIONS)
        })?;
        let mut requests =
            by_memory(wanted.requests, |memory| (memory / 8 / REQUEST_BYTES).min(MOST_REQUESTS))?;
        if wanted.requests == Ceiling::Auto {
            requests = requests.min(connections);
        }
        if requests > connections {
            return Err(CapacityError::TooManyRequests { requests, connections });
        }
        let percent = wanted.share_percent;
        let share = Share {
            requests: Share::of(requests, percent, 1),
            bytes: Share::of(bytes, percent, wanted.body_bytes),
        };
        let (requests, connections) = (count(requests), count(connections));
        Ok(Self { bytes, requests, connections, share, cache })
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, requests, connections, share, cache: _ } = self;
        write!(
            f,
            "{bytes} bytes of uploads, {requests} requests and {connections} connections at once; of \
             several tenants each at most {} bytes and {} requests",
            share.bytes.min(*bytes),
            share.requests.min(*requests as u64)
        )
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl From<u64> for Ceiling {
    fn from(number: u64) -> Self {
        Self::Fixed(number)
    }
}

impl<'de> Deserialize<'de> for Ceiling {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = Ceiling;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number above 0 or \"auto\"")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Ceiling, E> {
                if number == 0 {
                    return Err(E::invalid_value(serde::de::Unexpected::Unsigned(number), &self));
                }
                Ok(Ceiling::Fixed(number))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Ceiling, E> {
                let unexpected = serde::de::Unexpected::Signed(number);
                let number =
                    u64::try_from(number).map_err(|_| E::invalid_value(unexpected, &self))?;
                self.visit_u64(number)
            }

            // Environment variables are text.
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ceiling, E> {
                if text == "auto" {
                    return Ok(Ceiling::Auto);
                }
                let unexpected = serde::de::Unexpected::Str(text);
                let number = text.parse().map_err(|_| E::invalid_value(unexpected, &self))?;
                self.visit_u64(number)
            }
        }
        deserializer.deserialize_any(Words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_AUTO: Wanted = Wanted {
        bytes: Ceiling::Auto,
        requests: Ceiling::Auto,
        connections: Ceiling::Auto,
        body_bytes: 20 << 20,
        share_percent: 50,
        cache_bytes: 0,
    };

    fn memory(bytes: u64) -> MemoryLimit {
        MemoryLimit { bytes, source: "/sys/fs/cgroup/memory.max".into() }
    }

    fn of(wanted: &Wanted, bytes: u64) -> Result<Capacity, CapacityError> {
        Capacity::of(wanted, Some(&memory(bytes)))
    }

    #[test]
    fn the_limits_of_half_a_gibibyte_are_as_documented() {
        let share = Share { bytes: 128 << 20, requests: 128 };
        let limits =
            Capacity { bytes: 256 << 20, requests: 256, connections: 2048, share, cache: 0 };
        assert_eq!(of(&ALL_AUTO, 512 << 20), Ok(limits));
        let share = Share { bytes: 120 << 20, requests: 120 };
        let cache = 32 << 20;
        let limits = Capacity { bytes: 240 << 20, requests: 240, connections: 1920, share, cache };
        assert_eq!(of(&Wanted { cache_bytes: 64 << 20, ..ALL_AUTO }, 512 << 20), Ok(limits));
    }

    #[test]
    fn what_may_be_in_flight_leaves_an_eighth_of_any_memory() {
        let wanted = Wanted { cache_bytes: 64 << 20, ..ALL_AUTO };
        for bytes in [64 << 20, 500_000_000, 2 << 30, 64 << 30] {
            let limits = of(&wanted, bytes).unwrap();
            let requests = limits.requests as u64 * REQUEST_BYTES;
            let connections = (limits.connections * CONNECTION_BYTES) as u64;
            let kept = limits.cache;
            assert!(limits.bytes + requests + connections + kept <= bytes - (bytes - kept) / 8);
            assert!(limits.requests <= limits.connections);
        }
    }

    #[test]
    fn a_number_that_is_set_counts_whatever_the_memory() {
        let wanted = Wanted {
            bytes: 50_000_000.into(),
            requests: 7.into(),
            connections: 9.into(),
            ..ALL_AUTO
        };
        let share = Share { bytes: 25_000_000, requests: 3 };
        let limits = Capacity { bytes: 50_000_000, requests: 7, connections: 9, share, cache: 0 };
        assert_eq!(of(&wanted, 1 << 40), Ok(limits));
        assert_eq!(Capacity::of(&wanted, None), Ok(limits));
    }

    #[test]
    fn the_smallest_share_has_room_for_one_request_and_for_the_largest_upload() {
        let wanted = Wanted { requests: 7.into(), share_percent: 1, ..ALL_AUTO };
        let share = of(&wanted, 512 << 20).unwrap().share;
        assert_eq!(share, Share { requests: 1, bytes: 20 << 20 });
        let whole = of(&Wanted { share_percent: 100, ..ALL_AUTO }, 512 << 20).unwrap();
        assert_eq!(whole.share, Share { requests: Share::ALL, bytes: Share::ALL });
        assert!(whole.to_string().ends_with("each at most 268435456 bytes and 256 requests"));
    }

    #[test]
    fn no_more_requests_than_connections_are_computed() {
        let wanted = Wanted { connections: 5.into(), ..ALL_AUTO };
        assert_eq!(of(&wanted, 8 << 30).unwrap().requests, 5);
    }

    #[test]
    fn an_upload_that_could_never_be_taken_is_an_error_that_names_both_keys_and_the_memory() {
        let set = Wanted { bytes: 1000.into(), body_bytes: 1001, ..ALL_AUTO };
        for (error, named) in [
            (of(&set, 8 << 30).unwrap_err(), "1000 is below"),
            (
                of(&ALL_AUTO, 30 << 20).unwrap_err(),
                "15728640 (half of 31457280 bytes of memory (/sys",
            ),
        ] {
            let text = error.to_string();
            assert!(text.contains(named) && text.contains("server.max_body_bytes"), "{text}");
            assert!(text.starts_with("server.max_in_flight_bytes"), "{text}");
        }
        assert!(of(&Wanted { bytes: 1001.into(), ..set }, 8 << 30).is_ok());
    }

    #[test]
    fn more_requests_than_connections_is_an_error_that_names_both_keys() {
        let wanted = Wanted { requests: 10.into(), connections: 9.into(), ..ALL_AUTO };
        let text = of(&wanted, 8 << 30).unwrap_err().to_string();
        assert!(text.starts_with("server.max_in_flight_requests: 10"), "{text}");
        assert!(text.contains("server.max_connections (9)"), "{text}");
    }

    #[test]
    fn a_system_that_does_not_tell_its_memory_needs_numbers() {
        assert_eq!(Capacity::of(&ALL_AUTO, None), Err(CapacityError::UnknownMemory));
    }

    #[test]
    fn a_ceiling_is_a_number_or_auto_and_nothing_else() {
        let read = |json: &str| serde_json::from_str::<Ceiling>(json).ok();
        assert_eq!(read("\"auto\""), Some(Ceiling::Auto));
        assert_eq!(read("12"), Some(Ceiling::Fixed(12)));
        assert_eq!(read("\"12\""), Some(Ceiling::Fixed(12)));
        for wrong in ["0", "-1", "\"0\"", "\"much\"", "1.5", "null"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
