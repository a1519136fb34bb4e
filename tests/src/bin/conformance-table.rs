//! Prints the table of cases and backends, as Markdown, from the results of the last runs.
#![expect(clippy::print_stdout, reason = "the table is the output")]

use conformance::results::{Results, table};

fn main() {
    let backends = [("Simulator", "sim"), ("Kafka", "kafka")];
    let results = backends.map(|(title, backend)| (title, Results::read(backend)));
    print!("{}", table(&results));
}
