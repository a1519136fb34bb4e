//! The command, run as a person or a script runs it, on the simulator.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn without_arguments_it_shows_the_worst_days_of_the_order_export() {
    let output = bus(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    let parts = ["violated: confirmed orders are exported", "explain it: bus explain", "held: 500"];
    for part in parts.into_iter().chain(["runs per second", "virtual time", "What to try next"]) {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert_eq!(stderr(&output), "");
}

#[test]
fn what_explore_finds_is_replayed_and_explained() {
    let explored = bus(&[
        "explore",
        "order-export",
        "--form",
        "as-written",
        "--seeds",
        "0..500",
        "--faults",
        "CrashProcess",
        "--out",
        "found",
        "--json",
    ]);
    assert_eq!(explored.status.code(), Some(2), "{explored:?}");
    let object: Value = serde_json::from_str(&stdout(&explored)).unwrap();
    for key in ["name", "form", "seeds_run", "runs_per_second", "verdict"] {
        assert!(!object[key].is_null(), "{key}: {object}");
    }
    let found = &object["violations"][0];
    assert_eq!(found["guarantee"], "confirmed orders are exported", "{object}");
    assert!(found["steps_after"].as_u64() <= Some(2), "{object}");
    let file = found["replay"].as_str().unwrap();
    let page = std::fs::read_to_string(folder().join(found["html"].as_str().unwrap())).unwrap();
    assert!(page.contains("confirmed orders are exported") && !page.contains("http://"), "{page}");

    let replayed = bus(&["replay", file, "--json"]);
    assert_eq!(replayed.status.code(), Some(2), "{replayed:?}");
    let object: Value = serde_json::from_str(&stdout(&replayed)).unwrap();
    assert_eq!((&object["is_reproduced"], &object["is_identical"]), (&true.into(), &true.into()));

    let explained = bus(&["explain", file]);
    assert_eq!(explained.status.code(), Some(2), "{explained:?}");
    let text = stdout(&explained);
    assert!(text.contains("CrashProcess on order-service"), "{text}");
    assert!(text.contains("the form sound"), "{text}");

    let text = bus(&["replay", file, "--text", "again.busplay"]);
    assert_eq!(text.status.code(), Some(2), "{text:?}");
    let again = bus(&["replay", "again.busplay"]);
    assert!(stdout(&again).contains("the same run, event by event"), "{again:?}");

    let path = folder().join(file);
    let whole = std::fs::read_to_string(&path).unwrap();
    let broken = [
        (whole[..whole.len() / 2].to_owned(), "is broken in line"),
        (whole.replace("busplay: 1", "busplay: 2"), "has version 2"),
        ("[package]".to_owned(), "is no replay file"),
        (whole.replace("order-export", "order-import"), "there is no application"),
        (whole.replace("as-written", "as-told"), "has no form"),
    ];
    for (text, expected) in broken {
        std::fs::write(folder().join("broken.busplay"), text).unwrap();
        let output = bus(&["replay", "broken.busplay"]);
        assert_eq!(output.status.code(), Some(1), "{expected}: {output:?}");
        assert!(stderr(&output).contains(expected), "{expected}: {output:?}");
    }
}

#[test]
fn json_has_every_key() {
    let object = run_json("sim://?seed=7");
    for (key, value) in [
        ("app", Value::from("order-export")),
        ("form", "sound".into()),
        ("bus", "sim://?seed=7".into()),
        ("seed", 7.into()),
        ("verdict", "held".into()),
        ("records", 30.into()),
    ] {
        assert_eq!(object[key], value, "{key} in {object}");
    }
    assert!(object["virtual_ms"].is_u64() && object["wall_ms"].is_u64(), "{object}");
    let hash = object["trace_hash"].as_str().unwrap();
    assert!(hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{object}");
    assert_eq!(object["partitions"].as_array().map(Vec::len), Some(3), "{object}");
    assert_eq!(object["groups"][0]["lag"], 0, "{object}");
}

#[test]
fn equal_seeds_give_equal_traces_in_other_processes() {
    let first = run_json("sim://?seed=7")["trace_hash"].clone();
    assert_eq!(first, run_json("sim://?seed=7")["trace_hash"]);
    assert_ne!(first, run_json("sim://?seed=8")["trace_hash"]);
}

#[test]
fn worst_days_are_the_same_in_another_process() {
    let arguments = ["explore", "order-export", "--seeds", "0..20", "--audit", "4", "--json"];
    let explored = bus(&[&arguments[..], &["--audit-process", "10"]].concat());
    assert_eq!(explored.status.code(), Some(0), "{explored:?}");
    let object: Value = serde_json::from_str(&stdout(&explored)).unwrap();
    assert_eq!((&object["audited"], &object["audited_elsewhere"]), (&5.into(), &10.into()));
    assert_eq!(object["divergences"], Value::Array(Vec::new()));

    let traces = bus(&["traces", "order-export", "--seeds", "3..5"]);
    let text = stdout(&traces);
    let hashes: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!(hashes.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), ["3", "4"], "{text}");
    assert_ne!(hashes[0].1, hashes[1].1);
    let lines = stdout(&bus(&["traces", "order-export", "--seeds", "3..4", "--lines"]));
    assert!(lines.lines().count() > 100, "{lines}");
}

#[test]
fn a_simulation_that_stalls_has_exit_code_3_and_a_report() {
    // Longer than the world may last before the first order is confirmed.
    let url = "sim://?seed=1&event.limit=20";
    let output = bus(&["run", "order-export", "--bus", url, "--json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&object["verdict"], &object["seed"]), (&"stalled".into(), &1.into()));
    assert!(object["explanations"][0].as_str().unwrap().contains("20 events"), "{object}");
    assert!(object["trace_hash"].is_string(), "{object}");
}

#[test]
fn what_is_wrong_is_said_with_a_hint() {
    for (arguments, part) in [
        (&["run", "order-exprt"][..], "no application or failure story \"order-exprt\""),
        (&["run", "order-export", "--form", "fixed"], "as-written, sound"),
        (&["run", "order-export", "--bus", "localhost"], "has no scheme"),
        (&["run", "order-export", "--bus", "redis://localhost"], "unknown scheme \"redis\""),
        (&["run", "order-export", "--bus", "mem://"], "mem:// does not exist yet"),
        (&["run", "order-export", "--bus", "sim://?sed=1"], "unknown property \"sed\""),
        (&["run", "order-export", "--bus", "sim://?seed=x"], "seed=\"x\" must be a whole number"),
        (&["run", "order-export", "--bus", "sim://host"], "a simulation has no address"),
        (&["run", "order-export", "--bus", "kafka://a:b"], "malformed port \"b\""),
        (&["explore", "order-exprt"], "no application or failure story \"order-exprt\""),
        (&["explore", "order-export", "--seeds", "9..3"], "the second number must be greater"),
        (
            &["explore", "order-export", "--faults", "Rain"],
            "no fault \"Rain\"; there are CrashBroker",
        ),
        (&["explore", "order-export", "--sim", "brokers=x"], "brokers=\"x\" must be a whole"),
        (&["zoo", "hw-truncation-los"], "no failure story \"hw-truncation-los\""),
        (&["zoo", "--ranges", "0"], "0 is not in 1.."),
        (&["replay", "nowhere.busplay"], "nowhere.busplay cannot be read"),
        (&["run"], "<APPLICATION>"),
        (&["run", "order-export", "--sed", "1"], "--sed"),
        (&["rn"], "rn"),
    ] {
        let output = bus(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
        let text = stderr(&output);
        assert!(text.starts_with("error: ") && text.contains(part), "{arguments:?}: {text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("hint: "), "{arguments:?}: {text}");
    }
}

#[test]
fn the_zoo_is_measured() {
    let effort = ["zoo", "claim-before-effect", "--seeds", "50", "--ranges", "2"];
    let table = bus(&effort);
    assert_eq!(table.status.code(), Some(0), "{table:?}");
    let text = stdout(&table);
    assert!(text.contains("| A16 | `claim-before-effect` | "), "{text}");
    let json = bus(&[&effort[..], &["--json"]].concat());
    let lines: Value = serde_json::from_str(&stdout(&json)).unwrap();
    let line = &lines[0];
    assert_eq!((&line["entry"], &line["verdict"]), (&"A16".into(), &"fine".into()), "{line}");
    assert_eq!(line["seeds_to_find"].as_array().map(Vec::len), Some(2), "{line}");
    assert_eq!(line["fixed_seeds"], 50, "{line}");
}

#[test]
fn list_names_applications_and_forms() {
    let output = bus(&["list"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("order-export  "), "{output:?}");
    let list: Value = serde_json::from_str(&stdout(&bus(&["list", "--json"]))).unwrap();
    let forms = |name: &str| {
        let line = list.as_array().unwrap().iter().find(|line| line["name"] == name);
        line.map(|line| line["forms"].clone())
    };
    assert_eq!(forms("order-export"), Some(serde_json::json!(["as-written", "sound"])));
}

#[test]
fn help_goes_to_stdout_with_examples() {
    for arguments in [&["--help"][..], &["run", "--help"], &["help"]] {
        let output = bus(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("bus run order-export"), "{arguments:?}");
    }
}

fn run_json(url: &str) -> Value {
    let output = bus(&["run", "order-export", "--bus", url, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_str(&stdout(&output)).expect("it prints one JSON object")
}

fn bus(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bus"));
    command.current_dir(folder());
    command.args(arguments).env_remove("BUS_LOG").output().expect("the command starts")
}

/// Where commands run, and write.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is UTF-8")
}
