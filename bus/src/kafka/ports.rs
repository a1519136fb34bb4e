//! Ports: free ones on 127.0.0.1 for the brokers of a cluster.

use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Error;

/// The port that clients of Kafka expect.
const USUAL: u16 = 9092;

/// Where ports nobody asked for are taken from: below the ports that Linux and macOS give to
/// outgoing connections. Among those, a client that tries to reach a killed broker could be given
/// the broker's own port, and the broker could not come back.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// How long somebody who only looks may have a port.
const MOMENT: Duration = Duration::from_millis(500);

/// The ports of one broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ports {
    /// Where clients and other brokers connect.
    pub(super) broker: u16,
    /// Where the controllers talk.
    pub(super) controller: u16,
}

/// Finds ports for `brokers` brokers: from `first` on, if it is given, and otherwise from the
/// usual one on where that is free.
pub(super) fn choose(first: Option<u16>, brokers: u16) -> Result<Vec<Ports>, Error> {
    let mut free = Scan { offset: random_offset(), left: COUNT };
    let mut taken = Vec::new();
    if let Some(first) = first {
        for index in 0..brokers {
            let port = first.saturating_add(index);
            if taken.contains(&port) || !is_soon_free(port) {
                return Err(Error::PortTaken { port });
            }
            taken.push(port);
        }
    } else if (USUAL..USUAL + brokers).all(is_free) {
        taken.extend(USUAL..USUAL + brokers);
    } else {
        for _ in 0..brokers {
            taken.push(free.next(&taken, brokers)?);
        }
    }
    let mut ports = Vec::new();
    for broker in taken.clone() {
        let controller = free.next(&taken, brokers)?;
        ports.push(Ports { broker, controller });
    }
    Ok(ports)
}

/// Says whether nobody listens on `port`, or nobody does a moment later: others who look for a port
/// take it for an instant, as [`is_free`] does.
pub(super) fn is_soon_free(port: u16) -> bool {
    let end = Instant::now() + MOMENT;
    while !is_free(port) {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(MOMENT / 10);
    }
    true
}

/// Says whether nobody listens on `port`.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A walk over the ports that nobody asked for, from a random one on, so that clusters that start
/// at the same time do not meet.
struct Scan {
    offset: u16,
    left: u16,
}

impl Scan {
    fn next(&mut self, taken: &[u16], brokers: u16) -> Result<u16, Error> {
        while self.left > 0 {
            self.left -= 1;
            self.offset = (self.offset + 1) % COUNT;
            let port = FIRST + self.offset;
            if !taken.contains(&port) && is_free(port) {
                return Ok(port);
            }
        }
        Err(Error::NoPorts { count: usize::from(brokers) * 2 })
    }
}

fn random_offset() -> u16 {
    let [high, low, ..] = Uuid::new_v4().into_bytes();
    u16::from_be_bytes([high, low]) % COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ports_of_a_cluster_differ() {
        let ports = choose(None, 3).unwrap();
        let mut all: Vec<u16> = ports.iter().flat_map(|p| [p.broker, p.controller]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6, "{ports:?}");
    }

    #[test]
    fn a_port_that_was_asked_for_must_be_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(
            matches!(choose(Some(port), 1), Err(Error::PortTaken { port: taken }) if taken == port)
        );
    }

    #[test]
    fn ports_past_the_last_one_are_refused() {
        assert!(choose(Some(u16::MAX), 2).is_err());
    }
}
