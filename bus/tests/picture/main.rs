//! The picture of a real run of the simulator: what it shows, and how large it is.

mod story;
mod transactions;

use bus::picture::parts::{BandKind, Fate, LogChangeKind, MarkKind};
use bus::picture::{Diagram, Subject, diagram, to_html, to_text};
use story::{Told, orders, subject, tell};

#[test]
fn a_lost_record_is_drawn_with_what_led_to_it() {
    let picture = drawn();
    assert_eq!(picture.witness.len(), 3, "acknowledged, another leader, taken back");
    let past = picture.past();
    assert!((10..200).contains(&past.len()), "{} events in the past", past.len());
    let is_in = |kind: MarkKind, label: &str| {
        let marks = picture.marks.iter().filter(|mark| past.contains(&mark.id));
        let mut marks = marks.filter(|mark| mark.kind == kind);
        marks.any(|mark| mark.label.contains(label))
    };
    assert!(is_in(MarkKind::Call, "send orders order 3"), "{:#?}", picture.marks);
    assert!(is_in(MarkKind::Answer, "acknowledged orders-0@2"), "{:#?}", picture.marks);
    assert!(is_in(MarkKind::Fact, "appends orders-0@2"), "{:#?}", picture.marks);
    assert!(is_in(MarkKind::Fact, "elects broker-"), "{:#?}", picture.marks);
    assert!(is_in(MarkKind::Fact, "takes back orders-0@2"), "{:#?}", picture.marks);
    assert!(is_in(MarkKind::Crash, "crashes"), "a crash led to the election");
    let requests = picture.arrows.iter().filter(|arrow| past.contains(&arrow.id));
    assert!(requests.clone().any(|arrow| arrow.label == "Produce" && !arrow.is_reply));
    for arrow in requests.filter(|arrow| arrow.fate == Fate::Arrived) {
        assert!(arrow.arrived.is_some_and(|arrived| arrived >= arrow.sent), "{arrow:?}");
    }
}

#[test]
fn the_logs_have_the_values_of_the_records() {
    let picture = drawn();
    let [log] = picture.logs.as_slice() else { panic!("one partition: {:?}", picture.logs) };
    assert_eq!(log.partition, orders().to_string());
    let appended = log.changes.iter().filter_map(|change| match &change.kind {
        LogChangeKind::Added { values, is_copy: false, .. } => Some(values.join(" ")),
        _ => None,
    });
    let appended: Vec<String> = appended.collect();
    assert_eq!(appended, ["order 1", "order 2", "order 3", "order 4"]);
    let is_truncated = |kind: &LogChangeKind| matches!(kind, LogChangeKind::Truncated { .. });
    assert!(log.changes.iter().any(|change| is_truncated(&change.kind)));
}

#[test]
fn leadership_ownership_and_faults_are_bands() {
    let picture = drawn();
    for kind in [BandKind::Leads, BandKind::Owns, BandKind::Down, BandKind::Cut] {
        assert!(picture.bands.iter().any(|band| band.kind == kind), "{kind:?} is missing");
    }
    let leads = picture.bands.iter().filter(|band| band.kind == BandKind::Leads);
    assert!(leads.count() >= 2, "two leaders: {:?}", picture.bands);
    assert!(!picture.commits.is_empty(), "the consumer commits");
    assert!(!picture.plan.is_empty(), "the faults are the plan");
}

#[test]
fn the_same_run_gives_the_same_picture() {
    assert_eq!(to_html(&drawn()), to_html(&drawn()));
}

#[test]
fn a_picture_is_small_and_every_link_leads_somewhere() {
    let page = to_html(&drawn());
    assert!(page.len() < 300_000, "{} bytes", page.len());
    for link in page.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap_or("");
        assert!(page.contains(&format!("id=\"{id}\"")), "#{id} leads nowhere");
    }
    let text = to_text(&drawn(), 160);
    assert!(text.lines().count() <= 60, "{text}");
    assert!(text.contains("✗order 3→order 4"), "{text}");
}

#[test]
fn a_run_without_a_witness_is_drawn_whole() {
    let Told { events, .. } = tell(3).expect("the story ends");
    let picture = diagram(&events, Subject { title: "all".to_owned(), ..Subject::default() });
    assert!(!picture.arrows.is_empty());
    assert!(to_html(&picture).len() < 300_000, "{} bytes", to_html(&picture).len());
}

#[test]
fn aborted_records_ends_of_transactions_and_tombstones_are_told_apart() {
    let events = transactions::tell(5).expect("the story ends");
    let subject = Subject { partitions: vec![orders()], ..Subject::default() };
    let picture = diagram(&events, subject);
    let aborted: Vec<_> = picture.logs[0]
        .changes
        .iter()
        .filter_map(|change| match change.kind {
            LogChangeKind::Aborted { from, to } => Some((from, to)),
            _ => None,
        })
        .collect();
    assert_eq!(aborted, [(2, 4)], "{:?}", picture.logs[0]);
    let text = to_text(&picture, 160);
    let log = "paid [commit] ~∅~ ~\"null\"~ [abort]";
    assert!(text.contains(log), "{text}");
}

fn drawn() -> Diagram {
    let told = tell(7).expect("the story ends");
    diagram(&told.events, subject(&told))
}
