//! The command `bus kafka`: reads its arguments, calls [`Cluster`], and prints.
//!
//! Data goes to stdout and can be piped; talk goes to stderr.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    BrokerStatus, Cluster, Data, Error, KAFKA_VERSION, Options, Step, properties::parse_property,
};

/// The arguments of `bus kafka`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The cluster's name, so that several can run
    #[arg(long, global = true, value_name = "NAME")]
    name: Option<String>,
    /// The folder of all clusters [default: target/kafka of the workspace]
    #[arg(long, global = true, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Start Kafka, and print its URL when every broker answers
    Up(Up),
    /// Stop Kafka and remove its data
    Down {
        /// Keep the data for the next `up`
        #[arg(long)]
        keep_data: bool,
    },
    /// List the clusters and what their brokers do
    Status {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Kill a broker at once, as a loss of power would
    Kill(Broker),
    /// Stop a broker in peace: it hands its partitions over first
    Shutdown(Broker),
    /// Start a broker that was killed or stopped
    Start(Broker),
    /// Freeze a broker: it keeps its connections and answers nothing
    Freeze(Broker),
    /// Let a frozen broker go on
    Thaw(Broker),
}

#[derive(Args, Clone, Debug)]
struct Up {
    /// How many brokers [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=9))]
    brokers: Option<u16>,
    /// The first broker's port; the others take those that follow [default: 9092 if it is free]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// How many seconds the brokers may take until they answer
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    timeout: u32,
    /// A broker property of Kafka, such as message.max.bytes=5000; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,
}

#[derive(Args, Clone, Copy, Debug)]
struct Broker {
    /// The broker's number, from 1 on
    #[arg(value_name = "N")]
    broker: u16,
}

/// Does what `bus kafka …` was asked for.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    match &arguments.command {
        Command::Up(up) => start(arguments, up),
        Command::Down { keep_data } => {
            stop(arguments, if *keep_data { Data::Keep } else { Data::Remove })
        }
        Command::Status { json } => status(arguments, *json),
        Command::Kill(Broker { broker }) => {
            open(arguments)?.kill(*broker)?;
            say(format_args!("killed broker {broker}"));
            Ok(())
        }
        Command::Shutdown(Broker { broker }) => {
            open(arguments)?.shutdown(*broker)?;
            say(format_args!("stopped broker {broker}"));
            Ok(())
        }
        Command::Start(Broker { broker }) => {
            let mut cluster = open(arguments)?;
            let talk = Talk::new();
            talk.tell(&Step::Start { broker: *broker });
            cluster.start(*broker)?;
            drop(talk);
            say(format_args!("broker {broker} runs"));
            Ok(())
        }
        Command::Freeze(Broker { broker }) => {
            open(arguments)?.freeze(*broker)?;
            say(format_args!("froze broker {broker}; `bus kafka thaw {broker}` lets it go on"));
            Ok(())
        }
        Command::Thaw(Broker { broker }) => {
            open(arguments)?.thaw(*broker)?;
            say(format_args!("thawed broker {broker}"));
            Ok(())
        }
    }
}

fn start(arguments: &Arguments, up: &Up) -> Result<(), Error> {
    let properties = up.property.iter().map(|text| parse_property(text));
    let options = Options {
        dir: arguments.dir.clone(),
        name: name(arguments),
        brokers: up.brokers,
        port: up.port,
        timeout: Duration::from_secs(up.timeout.into()),
        properties: properties.collect::<Result<_, _>>()?,
    };
    let talk = Talk::new();
    let cluster = Cluster::up_with(&options, &mut |step| talk.tell(&step))?;
    drop(talk);
    say(format_args!(
        "Kafka {KAFKA_VERSION} runs; data and logs are in {}",
        cluster.folder().display()
    ));
    print(cluster.url())
}

fn stop(arguments: &Arguments, data: Data) -> Result<(), Error> {
    let cluster = open(arguments)?;
    let folder = cluster.folder();
    let talk = Talk::new();
    talk.say("stopping the brokers");
    cluster.down_with(data)?;
    drop(talk);
    match data {
        Data::Keep => say(format_args!("Kafka stopped; its data stays in {}", folder.display())),
        Data::Remove => say(format_args!(
            "Kafka stopped and its data removed; its logs stay in {}",
            folder.display()
        )),
    }
    Ok(())
}

fn status(arguments: &Arguments, json: bool) -> Result<(), Error> {
    let names = match &arguments.name {
        Some(name) => vec![name.clone()],
        None => Cluster::names(arguments.dir.as_deref())?,
    };
    let mut clusters = Vec::new();
    for name in names {
        let cluster = Cluster::open(arguments.dir.as_deref(), &name)?;
        clusters.push(ClusterStatus {
            name,
            url: cluster.url(),
            folder: cluster.folder(),
            brokers: cluster.status(),
        });
    }
    if json {
        let text = serde_json::to_string(&Clusters { clusters })
            .map_err(|error| Error::io("writing JSON")(error.into()))?;
        return print(text);
    }
    if clusters.is_empty() {
        say("no cluster; `bus kafka up` starts one");
    }
    for cluster in clusters {
        print(format_args!("{}  {}", cluster.name, cluster.url))?;
        for BrokerStatus { broker, state, port, pid } in cluster.brokers {
            let pid = pid.map_or_else(|| "-".into(), |pid| pid.to_string());
            print(format_args!("  broker {broker}  {state:<7}  port {port:<5}  pid {pid}"))?;
        }
    }
    Ok(())
}

fn open(arguments: &Arguments) -> Result<Cluster, Error> {
    Cluster::open(arguments.dir.as_deref(), &name(arguments))
}

fn name(arguments: &Arguments) -> String {
    arguments.name.clone().unwrap_or_else(|| Options::default().name)
}

/// What `bus kafka status --json` prints.
#[derive(Serialize)]
struct Clusters {
    clusters: Vec<ClusterStatus>,
}

#[derive(Serialize)]
struct ClusterStatus {
    name: String,
    url: String,
    folder: PathBuf,
    brokers: Vec<BrokerStatus>,
}

/// Tells what is being done: a spinner on a terminal, lines elsewhere.
struct Talk {
    spinner: Option<ProgressBar>,
}

impl Talk {
    fn new() -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            let spinner = ProgressBar::new_spinner();
            spinner.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { spinner }
    }

    fn tell(&self, step: &Step) {
        self.say(step);
    }

    fn say(&self, what: impl Display) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(what.to_string()),
            None => say(what),
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn print(line: impl Display) -> Result<(), Error> {
    writeln!(io::stdout().lock(), "{line}").map_err(Error::io("writing to stdout"))
}

fn say(line: impl Display) {
    // When nobody can read stderr any more there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Kafka {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Kafka::try_parse_from(line.split(' ')).map(|kafka| kafka.arguments)
    }

    #[test]
    fn arguments_are_read() {
        let arguments = parse("kafka up --brokers 3 --port 9192 --name ci --timeout 90").unwrap();
        assert_eq!(name(&arguments), "ci");
        let Command::Up(up) = arguments.command else { panic!("not up") };
        assert_eq!((up.brokers, up.port, up.timeout), (Some(3), Some(9192), 90));
        let arguments = parse("kafka kill 2").unwrap();
        assert_eq!(name(&arguments), "default");
        assert!(matches!(arguments.command, Command::Kill(Broker { broker: 2 })));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["kafka", "kafka up --brokers 0", "kafka up --port 0", "kafka kill", "kafka x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_cluster_that_is_not_there_is_an_error_with_a_hint() {
        let dir = std::env::temp_dir().join("no-such-folder-of-clusters");
        for line in ["down", "kill 1", "start 1", "freeze 1", "thaw 1", "status --name default"] {
            let arguments = parse(&format!("kafka {line} --dir {}", dir.display())).unwrap();
            let error = run(&arguments).unwrap_err();
            assert!(matches!(error, Error::NoCluster { .. }), "{line}: {error}");
            assert!(error.hint().contains("bus kafka up"), "{line}: {}", error.hint());
        }
    }
}
