//! The URL that chooses the backend, taken apart: `sim://?seed=42`, `kafka://host:9092,host:9093`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A bus URL: scheme, hosts, and options in the order in which they were written.
///
/// ```
/// use bus_core::BusUrl;
///
/// let url: BusUrl = "kafka://a:9092,b:9093?client.id=shop".parse()?;
/// assert_eq!(url.scheme, "kafka");
/// assert_eq!(url.hosts, ["a:9092", "b:9093"]);
/// assert_eq!(url.options, [("client.id".to_owned(), "shop".to_owned())]);
/// assert!("kafka://a:99999".parse::<BusUrl>().is_err());
/// # Ok::<_, bus_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusUrl {
    /// The part before `://`.
    pub scheme: String,
    /// The addresses between `://` and `?`, each as `host:port`; may be empty.
    pub hosts: Vec<String>,
    /// The options behind `?`, decoded.
    pub options: Vec<(String, String)>,
}

/// The port of an address that names none.
pub const KAFKA_PORT: u16 = 9092;

impl FromStr for BusUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid(text, "has no scheme", "write for example sim://?seed=42"));
        };
        let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = match hosts.trim_end_matches('/') {
            "" => Vec::new(),
            hosts => hosts.split(',').map(|host| parse_host(text, host)).collect::<Result<_>>()?,
        };
        let options = url::form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect::<Vec<_>>();
        for (i, (name, _)) in options.iter().enumerate() {
            if name.is_empty() {
                return Err(invalid(text, "has an option without a name", "write ?name=value"));
            }
            if options[..i].iter().any(|(other, _)| other == name) {
                let broken = format!("gives option {name:?} twice");
                return Err(invalid(text, &broken, "give it once"));
            }
        }
        Ok(Self { scheme: scheme.to_owned(), hosts, options })
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.hosts.join(","))?;
        if self.options.is_empty() {
            return Ok(());
        }
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.options)
            .finish();
        write!(f, "?{query}")
    }
}

fn parse_host(url: &str, host: &str) -> Result<String> {
    let (name, port) = match host.rsplit_once(':') {
        // An IPv6 address in brackets may come without a port.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if name.is_empty() || name.contains(['/', '@', ' ']) {
        let broken = format!("has a malformed address {host:?}");
        return Err(invalid(url, &broken, "write host:port, several with commas between"));
    }
    let port = match port {
        None => KAFKA_PORT,
        Some(port) => port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| {
            let broken = format!("has a malformed port {port:?} in address {host:?}");
            invalid(url, &broken, "a port is a number from 1 to 65535")
        })?,
    };
    Ok(format!("{name}:{port}"))
}

fn invalid(url: &str, broken: &str, right: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("bus URL {url:?} {broken}; {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_round_trip() {
        for text in ["sim://", "sim://?seed=42&brokers=3", "kafka://a:1,b:2?x=a%26b"] {
            let url: BusUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        let url: BusUrl = "kafka://localhost".parse().unwrap();
        assert_eq!(url.hosts, ["localhost:9092"]);
        let url: BusUrl = "kafka://[::1]:9093,[::2]".parse().unwrap();
        assert_eq!(url.hosts, ["[::1]:9093", "[::2]:9092"]);
    }

    #[test]
    fn malformed_urls_name_what_is_wrong() {
        for (text, part) in [
            ("localhost:9092", "no scheme"),
            ("kafka://a:b", "malformed port \"b\""),
            ("kafka://a:0", "malformed port \"0\""),
            ("kafka://a,,b", "malformed address \"\""),
            ("kafka://user@a:1", "malformed address"),
            ("sim://?seed=1&seed=2", "twice"),
            ("sim://?=1", "without a name"),
        ] {
            let error = text.parse::<BusUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
