//! Failure stories: each is found in its buggy form, and holds in its fixed one.

use bus::explore::{WorstDays, judged};
use bus_sim::explore::{Exploration, Explored};
use bus_sim::fault::{Envelope, draw};
use scenarios::{Application, Form, Kind, catalogue};

fn explore(story: &'static Application, form: Form, seeds: u64) -> Explored {
    let days = WorstDays::new(story, form, "").expect("its options are valid");
    let days = days.with_faults(None, Envelope::Tolerated).expect("its faults are known");
    let surroundings = days.surroundings().expect("a story has faults");
    Exploration::new(story.name, days.world().clone())
        .seeds(0..seeds)
        .faults(|seed| draw(seed, surroundings))
        .run(judged(story, form))
}

fn stories() -> impl Iterator<Item = &'static Application> {
    catalogue().iter().filter(|application| application.kind == Kind::Story)
}

#[test]
fn buggy_forms_are_found_and_shrunk() {
    assert!(stories().next().is_some(), "there is no story to be found");
    for story in stories() {
        let explored = explore(story, Form::AsWritten, 1_000);
        let Some(found) = explored.violations.first() else { panic!("{}: held", story.name) };
        let shrunk = &found.replay.shrunk;
        println!("{}: seed {}, {:?} in {} runs", story.name, found.seed, shrunk, shrunk.runs);
        assert!(shrunk.faults.1 <= 2, "{}", found.replay);
    }
}

#[test]
fn fixed_forms_hold() {
    for story in stories() {
        let explored = explore(story, Form::Sound, 100);
        assert!(explored.held(), "{}: {:?}", story.name, explored.violations);
    }
}
