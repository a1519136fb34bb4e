//! The picture: what it says, that it is the same again, and that a browser shows it.

mod chromium;
mod sample;

use bus_check::picture::diagram::{
    Diagram, Fate, Lane, LaneKind, LogChange, LogChangeKind, Mark, MarkKind, NULL, UNKNOWN,
};
use bus_check::picture::{to_html, to_text};
use sample::lost_write;

#[test]
fn the_page_is_as_before() {
    insta::assert_snapshot!(body(&to_html(&lost_write())));
}

#[test]
fn the_text_is_as_before() {
    insta::assert_snapshot!(to_text(&lost_write(), 130));
}

#[test]
fn a_narrow_terminal_gets_a_text_too() {
    insta::assert_snapshot!(to_text(&lost_write(), 80));
}

#[test]
fn equal_diagrams_give_equal_pictures_also_through_a_file() {
    let diagram = lost_write();
    let file = serde_json::to_string(&diagram).expect("plain data");
    let read: Diagram = serde_json::from_str(&file).expect("what was written");
    assert_eq!(diagram, read);
    assert_eq!(to_html(&diagram), to_html(&read));
}

#[test]
fn a_page_asks_no_network() {
    let page = to_html(&lost_write());
    for other in ["http://", "https://", "src=", "@import", "url(//"] {
        assert!(!page.contains(other), "{other} is in the page");
    }
}

#[test]
fn what_a_record_says_stays_text() {
    let hostile = "</script><img src=x onerror=alert(1)>\"'&\u{202e}\u{1b}[2J";
    let page = to_html(&everywhere(hostile));
    let scripts = page.matches("<script").count();
    assert_eq!((scripts, page.matches("</script").count()), (1, 1), "one script: ours");
    assert!(!page.contains("<img"), "a tag came through");
    assert!(!page.contains("\u{202e}") && !page.contains('\u{1b}'), "an invisible came through");
    let text = to_text(&everywhere(hostile), 120);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

#[test]
fn a_text_has_at_most_60_lines() {
    let text = to_text(&crowded(2_000), 120);
    assert!(text.lines().count() <= 60, "{}", text.lines().count());
    assert!(text.contains("left out"), "{text}");
    assert!(text.contains('◆'), "the witness is there: {text}");
}

#[test]
fn a_crowded_picture_stays_small() {
    let page = to_html(&crowded(20_000));
    assert!(page.len() < 300_000, "{} bytes", page.len());
    assert!(page.contains("are not drawn"), "it says that something is missing");
}

#[test]
fn nothing_is_a_picture_too() {
    let (page, text) = (to_html(&Diagram::default()), to_text(&Diagram::default(), 100));
    assert!(page.ends_with("</html>\n"), "{page}");
    assert!(text.starts_with("OK"), "{text}");
}

#[test]
fn a_log_shows_what_is_no_record_of_an_application() {
    let mut diagram = lost_write();
    let lane = diagram.logs[0].changes[0].lane;
    let kinds = [
        LogChangeKind::Added {
            from: 0,
            to: 4,
            values: [NULL, "\"null\"", "paid", UNKNOWN].map(str::to_owned).to_vec(),
            is_copy: false,
        },
        LogChangeKind::Aborted { from: 2, to: 3 },
        LogChangeKind::Marker { offset: 3, is_commit: false },
    ];
    let changes = (1..).zip(kinds).map(|(id, kind)| LogChange { id, at: id, lane, kind });
    diagram.logs[0].changes = changes.collect();
    let page = to_html(&diagram);
    let tombstone = "aria-label=\"null (tombstone)\" title=\"null (tombstone)\">∅</span>";
    for part in [
        tombstone,
        "<td class=\"here\">&quot;null&quot;</td>",
        "<td class=\"aborted\">paid<small> aborted</small></td>",
        "<td class=\"marker\">abort<small> marker</small></td>",
        "<li>∅ null (tombstone)</li>",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let text = to_text(&diagram, 100);
    assert!(text.contains("∅ \"null\" ~paid~ [abort]"), "{text}");
    assert!(text.contains("~x~ aborted"), "the signs are told: {text}");
}

/// The sample with a text in every place for one.
fn everywhere(text: &str) -> Diagram {
    let mut value = serde_json::to_value(lost_write()).expect("plain data");
    fill(&mut value, text);
    serde_json::from_value(value).expect("still a diagram")
}

/// Replaces every text that is for people; names of variants have no blank or small letter first.
fn fill(value: &mut serde_json::Value, text: &str) {
    match value {
        serde_json::Value::String(old) if !old.starts_with(char::is_uppercase) => {
            *old = text.to_owned();
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(|item| fill(item, text)),
        serde_json::Value::Object(map) => map.values_mut().for_each(|item| fill(item, text)),
        _ => {}
    }
}

/// A picture with far too much in it.
fn crowded(count: u64) -> Diagram {
    let mut diagram = lost_write();
    diagram.lanes.push(Lane { name: "broker-3".to_owned(), kind: LaneKind::Broker });
    let like = diagram.arrows[0].clone();
    for n in 0..count {
        let (id, sent) = (1_000 + 2 * n, n * 1_000_000);
        let mut arrow = like.clone();
        (arrow.id, arrow.end, arrow.sent, arrow.arrived) =
            (id, Some(id + 1), sent, Some(sent + 700_000));
        arrow.fate = if n % 7 == 0 { Fate::Late } else { Fate::Arrived };
        diagram.arrows.push(arrow);
        let label = "appends".to_owned();
        let (lane, detail) = (Some(ONE_OF_MANY), String::new());
        let kind = MarkKind::Fact;
        diagram.marks.push(Mark { id: 1_000_000 + n, lane, at: sent, kind, label, detail });
        if n < 200 {
            diagram.causes.insert(2, (0..n).map(|n| 1_000 + 2 * n).collect());
        }
    }
    diagram
}

const ONE_OF_MANY: usize = 5;

/// The page without style and script, which have files of their own.
fn body(page: &str) -> String {
    let (head, rest) = page.split_once("<style>").expect("a style");
    let (_, rest) = rest.split_once("</style>").expect("its end");
    let (main, _) = rest.split_once("<script>").expect("a script");
    format!("{head}{main}")
}
