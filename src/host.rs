//! Where a connection leads, as far as the name or address of its host tells.
//!
//! Names are not resolved: what one means may differ from moment to moment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where Alibaba Cloud's machines ask for facts and credentials of their own.
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// The same of Amazon's by IPv6.
const AMAZON_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether the host is this machine, so that what is sent there stays on it.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether the host is an address at which only the machine's own cloud or link answers: IPv4 and IPv6
/// link-local, and the metadata services outside of these.
pub fn is_link_local(host: &str) -> bool {
    match address(host) {
        Some(IpAddr::V4(address)) => address.is_link_local() || address == ALIBABA_METADATA,
        Some(IpAddr::V6(address)) => address.is_unicast_link_local() || address == AMAZON_METADATA,
        None => false,
    }
}

/// The address that a host is, with or without the brackets of a URL. An IPv4 address that is written as an
/// IPv6 address is the IPv4 address.
fn address(host: &str) -> Option<IpAddr> {
    let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_other_hosts() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(host) && !is_link_local(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "0.0.0.0", "[fe80::1]", "a", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn link_local_addresses_and_metadata_services_are_known() {
        for host in [
            "169.254.169.254",
            "169.254.0.1",
            "[fe80::1]",
            "febf::1",
            "[::ffff:169.254.169.254]",
            "100.100.100.200",
            "[fd00:ec2::254]",
        ] {
            assert!(is_link_local(host), "{host}");
        }
        for host in ["169.253.0.1", "[fec0::1]", "100.100.100.201", "dashscope.aliyuncs.com"] {
            assert!(!is_link_local(host), "{host}");
        }
    }
}
