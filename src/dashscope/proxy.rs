//! The proxy for an endpoint, read from the environment.
//!
//! The rules are curl's: `HTTPS_PROXY` or `HTTP_PROXY` by the endpoint's scheme, else `ALL_PROXY`, unless `NO_PROXY`
//! names the host; each also in lower case. reqwest would read the same variables, but it ignores one that it cannot
//! parse, and the key would then take another route than the operator expects. So this module reads them: the service
//! does not start if a variable cannot be parsed, and reqwest gets exactly the proxy that the operator is shown.
//! Loopback addresses are never reached by a proxy.

use std::collections::HashMap;
use std::fmt;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use secrecy::{ExposeSecret, SecretString};

use crate::host::is_loopback;

/// The variables, in upper case. The lower-case form counts if that is not set.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Replaces the part of a value that is not Unicode.
const UNREADABLE: char = char::REPLACEMENT_CHARACTER;

/// The proxies in the environment. An address may hold a password.
#[derive(Debug, Clone, Default)]
pub struct ProxyVariables {
    https: Variable,
    http: Variable,
    all: Variable,
    no: Variable,
}

/// One variable; empty if it is not set.
#[derive(Debug, Clone, Default)]
struct Variable {
    name: String,
    value: SecretString,
}

/// A variable that holds no valid proxy. Its value is not shown, since it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {why}")]
pub struct ProxyError {
    variable: String,
    why: &'static str,
}

/// How an endpoint is reached.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// Without a proxy.
    Direct,
    /// Through this proxy.
    Proxy {
        intercept: Intercept,
        /// The variable that sets it.
        variable: String,
    },
}

impl ProxyVariables {
    /// Whether `name` is one of the variables.
    pub fn is_one(name: &str) -> bool {
        VARIABLES.iter().any(|variable| *variable == name || variable.to_ascii_lowercase() == name)
    }

    /// The variables in `environment`.
    pub fn of(environment: &HashMap<String, String>) -> Self {
        let [https, http, all, no] = VARIABLES.map(|upper| {
            let names = [upper.to_owned(), upper.to_ascii_lowercase()];
            let found = names.into_iter().find_map(|name| {
                let value = environment.get(&name)?;
                Some(Variable { value: value.as_str().into(), name })
            });
            found.unwrap_or_default()
        });
        Self { https, http, all, no }
    }

    /// How the endpoint at `base` is reached.
    ///
    /// # Errors
    ///
    /// [`ProxyError`] names a variable that cannot be parsed, even if it does not concern this endpoint.
    pub(crate) fn way_to(&self, base: &reqwest::Url) -> Result<Way, ProxyError> {
        for variable in [&self.https, &self.http, &self.all] {
            variable.check_address()?;
        }
        let matcher = Matcher::builder()
            .https(self.https.text())
            .http(self.http.text())
            .all(self.all.text())
            .no(self.no.hosts()?)
            .build();
        let intercept = base.as_str().parse().ok().and_then(|uri| matcher.intercept(&uri));
        let Some(intercept) =
            intercept.filter(|_| !is_loopback(base.host_str().unwrap_or_default()))
        else {
            return Ok(Way::Direct);
        };
        let own = if base.scheme() == "https" { &self.https } else { &self.http };
        let named = if own.text().is_empty() { &self.all } else { own };
        Ok(Way::Proxy { intercept, variable: named.name.clone() })
    }
}

impl Variable {
    fn text(&self) -> String {
        self.value.expose_secret().trim().to_owned()
    }

    fn wrong<T>(&self, why: &'static str) -> Result<T, ProxyError> {
        Err(ProxyError { variable: self.name.clone(), why })
    }

    fn check_address(&self) -> Result<(), ProxyError> {
        let text = self.text();
        if text.is_empty() {
            return Ok(());
        }
        if text.to_ascii_lowercase().starts_with("socks") {
            return self.wrong("names a SOCKS proxy, which is not supported; name an HTTP proxy");
        }
        let anywhere = hyper::Uri::from_static("http://example.com/");
        let is_address = Matcher::builder().all(text).build().intercept(&anywhere).is_some();
        if is_address {
            return Ok(());
        }
        self.wrong("is no address of a proxy; write http://HOST:PORT, or unset it")
    }

    /// The hosts of `NO_PROXY`. `*.example.com` means what `.example.com` does.
    fn hosts(&self) -> Result<String, ProxyError> {
        let text = self.text();
        let hosts: Vec<_> = text.split(',').map(str::trim).collect();
        let is_wrong = |host: &&&str| {
            let network = host.split_once('/').map(|(ip, bits)| (ip.parse(), bits.parse::<u8>()));
            let is_network = match network {
                None => true,
                Some((Ok(std::net::IpAddr::V4(_)), Ok(bits))) => bits <= 32,
                Some((Ok(std::net::IpAddr::V6(_)), Ok(bits))) => bits <= 128,
                Some(_) => false,
            };
            host.contains(UNREADABLE) || !is_network
        };
        if hosts.iter().find(is_wrong).is_some() {
            return self
                .wrong("holds an entry that is no host, domain or network; separate by commas");
        }
        let plain = hosts.into_iter().map(|host| match host.strip_prefix("*.") {
            Some(domain) => format!(".{domain}"),
            None => host.to_owned(),
        });
        Ok(plain.collect::<Vec<_>>().join(","))
    }
}

impl Way {
    /// Makes `http` use this route and no other.
    pub(crate) fn of(
        &self,
        http: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, reqwest::Error> {
        let http = http.no_proxy();
        let Self::Proxy { intercept, .. } = self else { return Ok(http) };
        let mut proxy = reqwest::Proxy::all(intercept.uri().to_string())?;
        if let Some(authorization) = intercept.basic_auth() {
            proxy = proxy.custom_http_auth(authorization.clone());
        }
        Ok(http.proxy(proxy))
    }
}

impl Way {
    /// The warning about a password that goes to the proxy unencrypted.
    pub(crate) fn warning(&self) -> Option<String> {
        let Self::Proxy { intercept, variable } = self else { return None };
        let uri = intercept.uri();
        let host = uri.host().unwrap_or_default();
        let is_open = intercept.basic_auth().is_some()
            && uri.scheme_str() != Some("https")
            && !is_loopback(host);
        is_open.then(|| {
            format!(
                "{variable}: the proxy's password goes to {host} unencrypted; use an https:// proxy"
            )
        })
    }
}

/// The proxy for operators, without the user name and the password.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("without a proxy"),
            Self::Proxy { intercept, variable } => {
                let address = intercept.uri().to_string();
                write!(f, "by the proxy {} ({variable})", address.trim_end_matches('/'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(base: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let pairs = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let way = ProxyVariables::of(&pairs.collect()).way_to(&base.parse().unwrap());
        way.map(|way| way.to_string()).map_err(|error| error.to_string())
    }

    const HTTPS: &str = "https://dashscope.aliyuncs.com";

    #[test]
    fn the_variable_of_the_scheme_counts_before_that_of_all_in_either_case() {
        for (variables, expected) in [
            (vec![], "without a proxy"),
            (vec![("HTTP_PROXY", "http://p:1")], "without a proxy"),
            (vec![("HTTPS_PROXY", "http://p:1")], "by the proxy http://p:1 (HTTPS_PROXY)"),
            (vec![("https_proxy", "p:1")], "by the proxy http://p:1 (https_proxy)"),
            (vec![("ALL_PROXY", "https://p:1")], "by the proxy https://p:1 (ALL_PROXY)"),
            (
                vec![
                    ("all_proxy", "http://a"),
                    ("HTTPS_PROXY", "http://h"),
                    ("https_proxy", "http://l"),
                ],
                "by the proxy http://h (HTTPS_PROXY)",
            ),
        ] {
            assert_eq!(way(HTTPS, &variables).as_deref(), Ok(expected), "{variables:?}");
        }
        let http = way("http://dashscope.internal", &[("http_proxy", "http://p:1")]);
        assert_eq!(http.as_deref(), Ok("by the proxy http://p:1 (http_proxy)"));
    }

    #[test]
    fn hosts_that_need_no_proxy_and_loopback_are_reached_without() {
        let proxy = ("ALL_PROXY", "http://p:1");
        for no in ["aliyuncs.com", "a.b, .aliyuncs.com", "*.aliyuncs.com", "*"] {
            for name in ["NO_PROXY", "no_proxy"] {
                let way = way(HTTPS, &[proxy, (name, no)]);
                assert_eq!(way.as_deref(), Ok("without a proxy"), "{name}={no}");
            }
        }
        assert_eq!(way("http://127.0.0.1:1", &[proxy]).as_deref(), Ok("without a proxy"));
        assert_eq!(
            way("http://10.1.2.3", &[proxy, ("NO_PROXY", "10.0.0.0/8")]).as_deref(),
            Ok("without a proxy")
        );
    }

    #[test]
    fn a_variable_that_cannot_be_read_is_an_error_that_names_it_and_not_its_value() {
        for (name, value) in [
            ("HTTPS_PROXY", "http://user:secret@"),
            ("http_proxy", "secret proxy"),
            ("ALL_PROXY", "ftp://secret"),
            ("all_proxy", "socks5://secret:1080"),
            ("HTTPS_PROXY", "http://secret\u{fffd}"),
            ("NO_PROXY", "10.0.0.0/99"),
            ("no_proxy", "secret\u{fffd}"),
        ] {
            let error = way("http://127.0.0.1:1", &[(name, value)]).unwrap_err();
            assert!(
                error.starts_with(&format!("{name}: ")) && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_password_that_goes_to_a_proxy_unencrypted_draws_a_warning_without_it() {
        for (proxy, is_warned) in [
            ("http://user:secret@p:1", true),
            ("user:secret@10.0.0.1:1", true),
            ("https://user:secret@p:1", false),
            ("http://p:1", false),
            ("http://user:secret@127.0.0.1:1", false),
            ("http://user:secret@[::1]:1", false),
        ] {
            let variables = [("HTTPS_PROXY".to_owned(), proxy.to_owned())];
            let way = ProxyVariables::of(&variables.into()).way_to(&HTTPS.parse().unwrap());
            let warning = way.unwrap().warning();
            assert_eq!(warning.is_some(), is_warned, "{proxy}");
            let text = warning.unwrap_or_default();
            assert!(!is_warned || text.starts_with("HTTPS_PROXY: "), "{text}");
            assert!(!text.contains("secret") && !text.contains("user"), "{text}");
        }
    }

    #[test]
    fn a_password_is_used_and_not_shown() {
        let variables = [("HTTPS_PROXY".to_owned(), "http://user:secret@p:1".to_owned())];
        let variables = ProxyVariables::of(&variables.into());
        let way = variables.way_to(&HTTPS.parse().unwrap()).unwrap();
        assert!(!format!("{way} {way:?} {variables:?}").contains("secret"));
        let Way::Proxy { intercept, .. } = &way else { panic!("{way}") };
        assert_eq!(intercept.basic_auth().unwrap(), "Basic dXNlcjpzZWNyZXQ=");
        assert!(way.of(reqwest::Client::builder()).is_ok());
    }
}
