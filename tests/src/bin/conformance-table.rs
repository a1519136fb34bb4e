//! Prints the table of all cases on the simulator and on Kafka, from the results of their last
//! runs: `cargo run -p conformance --bin conformance-table`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use conformance::results::{Results, table};

fn main() {
    let backends = [("Simulator", Results::read("sim")), ("Kafka", Results::read("kafka"))];
    print!("{}", table(&backends));
}
