//! Agreement: every checker finds in a random history what a naive transcription of its definition
//! finds, and nothing in a valid one.

#![expect(clippy::unwrap_used, reason = "a test may fail so")]

mod generate;
mod model;
mod naive;
mod step;

use std::collections::BTreeSet;

use bus_check::check::{self, Anomalies, Check, Promise};
use bus_check::{CommitMode, Environment, History, Model, NoTruth, judge};
use proptest::prelude::*;

use model::{SETTLING, Tiny};

fn environment() -> Environment {
    Environment { commits: CommitMode::AfterHandling, settling: SETTLING, ..Environment::safe() }
}

/// At least so many cases; `PROPTEST_CASES` asks for more.
const CASES: u32 = 500;

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(CASES), failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_valid_history_holds(steps in generate::steps()) {
        let history = Tiny::play(&steps);
        let report = judge(&history, &environment(), &NoTruth);
        let wrong: Vec<_> = report
            .findings()
            .iter()
            .filter(|finding| finding.anomaly.promise != Promise::NotPromised)
            .map(|finding| format!("{}: {}", finding.guarantee, finding.anomaly.sentence))
            .collect();
        prop_assert!(wrong.is_empty(), "{}\n{history}", wrong.join("\n"));
    }

    #[test]
    fn the_checkers_find_what_the_definitions_say(
        steps in generate::steps(),
        plants in generate::plants(),
    ) {
        let history = generate::plant(&Tiny::play(&steps), &plants);
        agree(&history)?;
    }
}

fn agree(history: &History) -> Result<(), TestCaseError> {
    let environment = environment();
    let model = Model::new(history, &environment);
    for (guarantee, expected) in naive::judge(history, &environment) {
        let checker = check::ALL.iter().find(|checker| checker.guarantee == guarantee).unwrap();
        let mut anomalies = Anomalies::keeping(usize::MAX);
        let Check::History(check) = checker.check else { continue };
        check(&model, &mut anomalies);
        let found: BTreeSet<_> =
            anomalies.first.iter().map(|anomaly| (anomaly.subject, anomaly.promise)).collect();
        prop_assert_eq!(&found, &expected, "{}: found, expected\n{}", guarantee, history);
    }
    Ok(())
}
