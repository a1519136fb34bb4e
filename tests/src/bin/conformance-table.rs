//! Prints the table of cases and backends, as Markdown, from the results of the last runs.
#![expect(clippy::print_stdout, reason = "the table is the output")]

use conformance::column::COLUMNS;
use conformance::results::{Results, table};

fn main() {
    let results = COLUMNS.map(|column| (column.title, Results::read(column.id)));
    print!("{}", table(&results));
}
