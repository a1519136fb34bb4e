//! Failure stories: each is found in its buggy form, and holds in its fixed one.

use bus::explore::WorstDays;
use bus_sim::explore::{Explored, Replay};
use bus_sim::fault::Envelope;
use scenarios::{Application, Form, Kind, catalogue};

fn worst_days(story: &'static Application, form: Form) -> WorstDays {
    let days = WorstDays::new(story, form, "").expect("its options are valid");
    days.with_faults(None, Envelope::Tolerated).expect("its faults are known")
}

fn explore(days: &WorstDays, seeds: u64) -> Explored {
    days.exploration().seeds(0..seeds).run(days.judged())
}

fn stories() -> impl Iterator<Item = &'static Application> {
    catalogue().iter().filter(|application| application.kind == Kind::Story)
}

#[test]
fn buggy_forms_are_found_and_shrunk() {
    assert!(stories().next().is_some(), "there is no story to be found");
    for story in stories() {
        let days = worst_days(story, Form::AsWritten);
        let explored = explore(&days, 1_000);
        let Some(found) = explored.violations.first() else { panic!("{}: held", story.name) };
        let shrunk = &found.replay.shrunk;
        println!("{}: seed {}, {shrunk}", story.name, found.seed);
        assert!(shrunk.faults.1 <= 2, "{}", found.replay);
        let read = Replay::from_bytes(&found.replay.to_bytes()).expect("it was written by us");
        let replayed = read.run(days.world(), days.judged());
        assert!(replayed.is_identical, "{}: another run from its file", story.name);
    }
}

#[test]
fn fixed_forms_hold() {
    for story in stories() {
        let explored = explore(&worst_days(story, Form::Sound), 100);
        assert!(explored.held(), "{}: {:?}", story.name, explored.violations);
    }
}
