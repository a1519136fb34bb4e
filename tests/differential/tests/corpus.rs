//! What a real Kafka once made of programs, against what the simulator makes of them now. Needs no
//! Kafka: the outcomes are in the files of `programs`.

use std::path::{Path, PathBuf};

use bus_sim::Mutation;
use differential::backend::OnSim;
use differential::file::ProgramFile;
use differential::generate::{Features, program_of};
use differential::replay;

#[test]
fn the_simulator_does_what_kafka_did() {
    let mut wrong = Vec::new();
    for (path, file) in corpus() {
        if let Err(divergence) = replay::on_sim(&file, OnSim::default()) {
            wrong.push(format!("{}\n{divergence}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A comparison that always agrees would be worth nothing.
#[test]
fn planted_bugs_are_found() {
    let corpus = corpus();
    for mutation in [
        Mutation::BatchReversed,
        Mutation::NullBecomesEmpty,
        Mutation::HeadersLost,
        Mutation::AckedWithWrongOffset,
        Mutation::KeyToAnotherPartition,
        Mutation::MarkerOffsetReused,
        Mutation::AbortedRecordVisible,
    ] {
        let sim = OnSim { mutation: Some(mutation), ..OnSim::default() };
        let found = corpus.iter().any(|(_, file)| replay::on_sim(file, sim).is_err());
        assert!(found, "no program finds {}", mutation.name());
    }
}

#[test]
fn random_programs_are_repeatable() {
    for number in 0..40 {
        let program = program_of(1, number, Features::default());
        replay::twice(&program, OnSim::default()).expect("two runs give one outcome");
    }
}

fn corpus() -> Vec<(PathBuf, ProgramFile)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let entries = folder.read_dir().expect("there is a folder of programs");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let file = ProgramFile::read(&path).unwrap_or_else(|error| panic!("{error}"));
        (path, file)
    };
    paths.into_iter().map(read).collect()
}
