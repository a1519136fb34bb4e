//! Error: why a local cluster could not be started, changed, or stopped, and what to do about it.
//!
//! Not the error of the bus: these come from processes, files, and ports of this machine.

use std::{io, path::PathBuf, time::Duration};

use super::{distribution::JAVA_MIN, properties::KAFKA_VERSION};

/// Why a local cluster could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No `java` in `JAVA_HOME`, or without that variable none on the `PATH`.
    #[error("no java found: '{}' does not run", .java.display())]
    NoJava {
        /// What was tried.
        java: PathBuf,
    },
    /// A `java` that this version of Kafka does not start on.
    #[error("java {found} is too old: Kafka {KAFKA_VERSION} needs {JAVA_MIN} or newer")]
    OldJava {
        /// The version that `java -version` names.
        found: String,
    },
    /// Kafka's jars are not there yet, and no `mvn` on the `PATH` could fetch them.
    #[error("no mvn found, and the jars of Kafka {KAFKA_VERSION} are not downloaded yet")]
    NoMaven,
    /// Maven ran and failed.
    #[error("downloading Kafka {KAFKA_VERSION} failed:\n{excerpt}")]
    Download {
        /// What Maven complained about, indented.
        excerpt: String,
        /// Maven's whole output.
        log: PathBuf,
    },
    /// Another program listens on a port that a broker needs.
    #[error("port {port} on 127.0.0.1 is taken")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// Not enough free ports were found.
    #[error("found no {count} free ports on 127.0.0.1")]
    NoPorts {
        /// How many were needed.
        count: usize,
    },
    /// Kafka refused to prepare a broker's data folder.
    #[error("formatting the data of broker {broker} failed:\n{excerpt}")]
    Format {
        /// The broker.
        broker: u16,
        /// The lines of the tool's output that say why, indented.
        excerpt: String,
    },
    /// A broker's process ended before it answered.
    #[error("broker {broker} ended while it started; its log says:\n{excerpt}")]
    BrokerEnded {
        /// The broker.
        broker: u16,
        /// The lines of its log that say why, indented.
        excerpt: String,
        /// Its whole log.
        log: PathBuf,
    },
    /// A broker's process runs, but did not answer in time.
    #[error("broker {broker} did not answer within {} s", .timeout.as_secs_f64())]
    NotReady {
        /// The broker.
        broker: u16,
        /// How long it was waited for.
        timeout: Duration,
        /// Its whole log.
        log: PathBuf,
    },
    /// A broker's process did not end, not even when killed.
    #[error("broker {broker} (process {pid}) does not end")]
    NotEnded {
        /// The broker.
        broker: u16,
        /// Its process.
        pid: u32,
    },
    /// A cluster of that name is up with other settings than those asked for.
    #[error("the cluster '{name}' is already there with {there}, not with {asked}")]
    OtherSettings {
        /// The cluster.
        name: String,
        /// The setting that it has.
        there: String,
        /// The setting that was asked for.
        asked: String,
    },
    /// No cluster of that name.
    #[error("there is no cluster '{name}' in {}", .folder.display())]
    NoCluster {
        /// The name that was asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// No broker of that number.
    #[error("the cluster '{name}' has no broker {broker}: it has 1 to {brokers}")]
    NoBroker {
        /// The cluster.
        name: String,
        /// The number that was asked for.
        broker: u16,
        /// How many brokers the cluster has.
        brokers: usize,
    },
    /// The broker does not run, so that nothing can be done to its process.
    #[error("broker {broker} is not running")]
    NotRunning {
        /// The broker.
        broker: u16,
    },
    /// A name that can't be the name of a folder.
    #[error("'{name}' can't be the name of a cluster")]
    InvalidName {
        /// The name that was asked for.
        name: String,
    },
    /// A folder whose path Kafka or Java would misread.
    #[error("Kafka can't run below {}: its path has a ',', ':', or '\\'", .folder.display())]
    InvalidFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A property that the launcher sets itself, or that is no `name=value`.
    #[error("the property '{property}' can't be set: {reason}")]
    InvalidProperty {
        /// What was asked for.
        property: String,
        /// Why it can't be set.
        reason: &'static str,
    },
    /// The `cluster.json` of a cluster can't be understood.
    #[error("{} can't be read as the description of a cluster", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// A file, process, or stream of this machine failed.
    #[error("{doing} failed")]
    Io {
        /// What was being done, such as `writing target/kafka/default/cluster.json`.
        doing: String,
        /// The system's own error.
        source: io::Error,
    },
}

impl Error {
    /// Makes the mapper of a system error that says what was being done.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Returns what the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoJava { .. } => format!(
                "install a JDK {JAVA_MIN} or newer and put `java` on the PATH, or set JAVA_HOME"
            ),
            Self::OldJava { .. } => {
                format!("install a JDK {JAVA_MIN} or newer, or set JAVA_HOME to one")
            }
            Self::NoMaven => "install Apache Maven (`mvn`) and run this again".into(),
            Self::Download { log, .. } => format!(
                "Maven needs to reach Maven Central or the mirror in ~/.m2/settings.xml; \
                 its output is in {}",
                log.display()
            ),
            Self::PortTaken { port } => format!(
                "stop the program that listens on port {port}, or choose another with --port"
            ),
            Self::NoPorts { .. } => "close programs that listen on many ports".into(),
            Self::Format { .. } => {
                "correct or leave out the --property that it complains about".into()
            }
            Self::BrokerEnded { log, .. } => format!("its whole log is {}", log.display()),
            Self::NotReady { log, .. } => format!(
                "wait longer with --timeout, start more than half of the brokers, or read {}",
                log.display()
            ),
            Self::NotEnded { pid, .. } => format!("look at process {pid}, it may be in the kernel"),
            Self::OtherSettings { name, .. } => {
                format!("run `bus kafka down --name {name}` first, or choose another --name")
            }
            Self::NoCluster { name, .. } => {
                format!(
                    "`bus kafka up --name {name}` starts it; `bus kafka status` lists what there is"
                )
            }
            Self::NoBroker { .. } => "`bus kafka status` lists the brokers".into(),
            Self::NotRunning { broker } => format!("`bus kafka start {broker}` starts it"),
            Self::InvalidName { .. } => {
                "use letters, digits, '-', '_', and '.', and start with a letter or digit".into()
            }
            Self::InvalidFolder { .. } => {
                "choose another folder with --dir; Kafka and Java split paths at these".into()
            }
            Self::InvalidProperty { .. } => {
                "use --property NAME=VALUE with a broker property of Kafka".into()
            }
            Self::Manifest { path, .. } => format!(
                "stop the brokers that it names, if any still run, and remove {}",
                path.display()
            ),
            Self::Io { .. } => "look at the folder's owner, rights, and free space".into(),
        }
    }
}
