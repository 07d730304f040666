//! Where a connection leads, judged by the name or address of its host.
//!
//! Names are not resolved: their addresses may change at any time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The metadata service of Alibaba Cloud's machines, which gives out credentials.
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// The same of Amazon's, by IPv6.
const AMAZON_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether the host is this machine, so that nothing leaves it.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether only the machine's own link or cloud can answer at this address: IPv4 and IPv6 link-local, and metadata
/// services at other addresses.
pub fn is_link_local(host: &str) -> bool {
    match address(host) {
        Some(IpAddr::V4(address)) => address.is_link_local() || address == ALIBABA_METADATA,
        Some(IpAddr::V6(address)) => address.is_unicast_link_local() || address == AMAZON_METADATA,
        None => false,
    }
}

/// The host as an IP address, with or without the brackets of a URL. An IPv4-mapped IPv6 address becomes the IPv4
/// address.
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
