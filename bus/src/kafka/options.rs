//! Options: what cluster is asked for, and whether the one that is there is it.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use uuid::Uuid;

use super::{
    Error,
    manifest::{Broker, Manifest},
    ports,
    properties::KAFKA_VERSION,
};

/// What cluster to bring up, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of all clusters. `None`: `kafka` in the target folder of the workspace, so that
    /// `cargo clean` removes it.
    pub dir: Option<PathBuf>,
    /// The name by which the cluster is found again; `default`.
    pub name: String,
    /// How many brokers. `None`: those of the cluster that is there, or one.
    pub brokers: Option<u16>,
    /// The port of the first broker; the others take those that follow. `None`: 9092 and the
    /// following where they are free, else others.
    pub port: Option<u16>,
    /// How long the brokers may take until they answer. 60 s: ten times what three need on two
    /// cores, for a machine that does other things as well.
    pub timeout: Duration,
    /// Broker properties beside or instead of the launcher's own; none.
    pub properties: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            name: "default".into(),
            brokers: None,
            port: None,
            timeout: Duration::from_secs(60),
            properties: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Describes a cluster that isn't there yet.
    pub(super) fn manifest(&self) -> Result<Manifest, Error> {
        let brokers = self.brokers.unwrap_or(1).max(1);
        let brokers = ports::choose(self.port, brokers)?.into_iter().zip(1..).map(|(ports, id)| {
            Broker { id, port: ports.broker, controller_port: ports.controller, pid: None }
        });
        Ok(Manifest {
            version: 1,
            name: self.name.clone(),
            kafka: KAFKA_VERSION.into(),
            cluster_id: cluster_id(),
            properties: self.properties.clone(),
            brokers: brokers.collect(),
        })
    }

    /// Refuses a cluster that is there with other settings than those asked for.
    pub(super) fn check(&self, manifest: Manifest) -> Result<Manifest, Error> {
        let there = manifest.brokers.len();
        let port = manifest.brokers.first().map_or(0, |broker| broker.port);
        let differ = |there: String, asked: String| {
            Err(Error::OtherSettings { name: manifest.name.clone(), there, asked })
        };
        if let Some(asked) = self.brokers.filter(|asked| usize::from(*asked) != there) {
            return differ(format!("{there} brokers"), asked.to_string());
        }
        if let Some(asked) = self.port.filter(|asked| *asked != port) {
            return differ(format!("port {port}"), asked.to_string());
        }
        for (name, asked) in &self.properties {
            let there = manifest.properties.get(name);
            if there != Some(asked) {
                let there = there.map_or("its default", String::as_str);
                return differ(format!("{name}={there}"), asked.clone());
            }
        }
        if manifest.kafka != KAFKA_VERSION {
            return differ(format!("Kafka {}", manifest.kafka), KAFKA_VERSION.into());
        }
        Ok(manifest)
    }
}

/// What is being done, for those who wait.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// All brokers run already; nothing is done.
    AlreadyUp,
    /// Maven fetches Kafka's jars, which takes a minute.
    Download,
    /// The data folders are prepared.
    Format,
    /// The process of a broker was started.
    Start {
        /// The broker.
        broker: u16,
    },
    /// The brokers are asked until all of them answer.
    Wait,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyUp => f.write_str("already running"),
            Self::Download => write!(f, "fetching Kafka {KAFKA_VERSION} from Maven Central"),
            Self::Format => f.write_str("formatting the data folders"),
            Self::Start { broker } => write!(f, "starting broker {broker}"),
            Self::Wait => f.write_str("waiting until every broker answers"),
        }
    }
}

/// Returns a new id in Kafka's form: 16 random bytes in the URL-safe base 64, without padding.
fn cluster_id() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = Uuid::new_v4().as_u128();
    let digit = |at: u32| {
        // The 22nd digit has the last two bits, followed by four that are zero.
        let rest = if at < 21 { bits >> (122 - 6 * at) } else { bits << 4 };
        char::from(DIGITS[usize::from((rest & 63) as u8)])
    };
    let id: String = (0..22).map(digit).collect();
    // One that begins with a dash would be read as an option.
    if id.starts_with('-') { cluster_id() } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::default()
    }

    #[test]
    fn a_cluster_id_has_kafkas_form() {
        for _ in 0..100 {
            let id = cluster_id();
            assert_eq!(id.len(), 22, "{id}");
            assert!(!id.starts_with('-'), "{id}");
            assert!("AQgw".contains(&id[21..]), "the last digit has two bits: {id}");
        }
    }

    #[test]
    fn a_cluster_that_is_there_is_taken_when_nothing_else_is_asked_for() {
        let there = Options { brokers: Some(2), ..options() }.manifest().unwrap();
        assert!(options().check(there.clone()).is_ok());
        assert!(Options { brokers: Some(2), ..options() }.check(there.clone()).is_ok());
        let port = Some(there.brokers[0].port);
        assert!(Options { port, ..options() }.check(there).is_ok());
    }

    #[test]
    fn a_cluster_with_other_settings_is_refused() {
        let there = Options { brokers: Some(2), ..options() }.manifest().unwrap();
        let properties = BTreeMap::from([("num.io.threads".into(), "1".into())]);
        for (options, message) in [
            (
                Options { brokers: Some(3), ..options() },
                "the cluster 'default' is already there with 2 brokers, not with 3",
            ),
            (
                Options { properties, ..options() },
                "the cluster 'default' is already there with num.io.threads=its default, \
                 not with 1",
            ),
        ] {
            let error = options.check(there.clone()).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let port = Some(there.brokers[0].port + 1);
        assert!(Options { port, ..options() }.check(there).is_err());
    }
}
