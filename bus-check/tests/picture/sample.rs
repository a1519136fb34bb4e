//! A picture by hand: a record that was acknowledged by its leader alone is lost with it.

use bus_check::picture::diagram::{
    Arrow, Band, BandKind, Commit, Diagram, EventId, Fate, Lane, LaneKind, LogChange,
    LogChangeKind, LogStrip, Mark, MarkKind, Sentence, Step, Transaction, TransactionState,
    Verdict,
};

const MS: u64 = 1_000_000;

/// The lanes of the sample, by index.
const PRODUCER: usize = 0;
const CONSUMER: usize = 1;
const ONE: usize = 2;
const TWO: usize = 3;
const CONTROLLER: usize = 4;

/// The picture.
pub(crate) fn lost_write() -> Diagram {
    Diagram {
        title: "order export, seed 17".to_owned(),
        verdict: verdict(),
        lanes: lanes(),
        arrows: arrows(),
        marks: marks(),
        bands: bands(),
        logs: vec![log()],
        commits: commits(),
        transactions: vec![transaction()],
        witness: vec![6, 12, 17],
        narrative: narrative(),
        plan: plan(),
        causes: causes(),
    }
}

fn verdict() -> Verdict {
    Verdict {
        is_violation: true,
        word: "violated".to_owned(),
        guarantee: "B2 lost write, finally".to_owned(),
        sentence: "Record “order-3” was acknowledged at orders-0@2 and is not in the log."
            .to_owned(),
        reason: "With acks=1 the leader answers before any follower has the record; broker-1 died \
                 first, and broker-2 was elected without it."
            .to_owned(),
        replay: "bus replay order-export-17.busplay".to_owned(),
        facts: [("seed", "17"), ("steps", "412 shrunk to 5"), ("virtual time", "9.2 s")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    }
}

fn lanes() -> Vec<Lane> {
    let kinds = [
        ("checkout", LaneKind::Process),
        ("export-1", LaneKind::Process),
        ("broker-1", LaneKind::Broker),
        ("broker-2", LaneKind::Broker),
        ("controller", LaneKind::Controller),
    ];
    kinds.map(|(name, kind)| Lane { name: name.to_owned(), kind }).to_vec()
}

fn arrow(ids: (EventId, EventId), way: (usize, usize), at: (u64, u64), label: &str) -> Arrow {
    Arrow {
        id: ids.0,
        end: Some(ids.1),
        from: way.0,
        sent: at.0,
        to: way.1,
        arrived: Some(at.1),
        label: label.to_owned(),
        detail: String::new(),
        is_reply: false,
        fate: Fate::Arrived,
    }
}

fn arrows() -> Vec<Arrow> {
    let held = Arrow {
        end: None,
        arrived: None,
        fate: Fate::Held,
        ..arrow((8, 0), (TWO, ONE), (1_010 * MS, 0), "Fetch")
    };
    let lost = Arrow {
        end: None,
        arrived: None,
        fate: Fate::Lost,
        detail: "group g@2".to_owned(),
        ..arrow((40, 0), (CONSUMER, ONE), (1_011 * MS, 0), "OffsetCommit")
    };
    let reply = Arrow {
        is_reply: true,
        detail: "orders-0@2".to_owned(),
        ..arrow((5, 6), (ONE, PRODUCER), (1_003 * MS, 1_004 * MS), "Produce")
    };
    let late = Arrow {
        fate: Fate::Late,
        ..arrow((10, 11), (ONE, CONTROLLER), (500 * MS, 1_006 * MS), "BrokerHeartbeat")
    };
    let request = Arrow {
        detail: "orders-0 [order-3, </script><script>alert(1)</script>]".to_owned(),
        ..arrow((2, 3), (PRODUCER, ONE), (1_001 * MS, 1_002 * MS), "Produce")
    };
    let gone = Arrow {
        fate: Fate::Discarded,
        ..arrow((50, 51), (PRODUCER, ONE), (2_000 * MS, 2_001 * MS), "Metadata")
    };
    let fetch = arrow((15, 16), (ONE, TWO), (9_001 * MS, 9_002 * MS), "Fetch");
    vec![request, reply, held, late, gone, fetch, lost]
}

fn mark(id: EventId, lane: usize, at: u64, kind: MarkKind, label: &str) -> Mark {
    let (lane, label, detail) = (Some(lane), label.to_owned(), String::new());
    Mark { id, lane, at, kind, label, detail }
}

fn marks() -> Vec<Mark> {
    let cut = Mark {
        lane: None,
        ..mark(1, 0, 900 * MS, MarkKind::Fault, "link broker-1 ⇹ broker-2 is cut")
    };
    vec![
        cut,
        mark(7, PRODUCER, 1_000 * MS, MarkKind::Call, "send orders order-3"),
        mark(4, ONE, 1_002 * MS, MarkKind::Fact, "appends orders-0@2"),
        mark(9, ONE, 1_020 * MS, MarkKind::Crash, "crashes"),
        mark(12, CONTROLLER, 5_020 * MS, MarkKind::Fact, "elects broker-2, epoch 1"),
        mark(14, ONE, 9_000 * MS, MarkKind::Start, "starts again"),
        mark(17, ONE, 9_003 * MS, MarkKind::Fact, "takes back orders-0@2"),
        mark(30, CONSUMER, 300 * MS, MarkKind::Answer, "polls orders-0@0..1"),
        mark(31, CONSUMER, 1_500 * MS, MarkKind::Failure, "commit: request timed out"),
        mark(32, CONSUMER, 1_600 * MS, MarkKind::Timer, "session timeout"),
        mark(33, CONSUMER, 1_700 * MS, MarkKind::Pause, "pauses"),
    ]
}

fn bands() -> Vec<Band> {
    let band = |kind, lanes: &[usize], subject: &str, from, to| Band {
        id: None,
        kind,
        lanes: lanes.to_vec(),
        subject: subject.to_owned(),
        detail: String::new(),
        from,
        to,
    };
    let leads = |lane, epoch: u32, from, to| Band {
        detail: format!("epoch {epoch}"),
        ..band(BandKind::Leads, &[lane], "orders-0", from, to)
    };
    vec![
        leads(ONE, 0, 0, Some(1_020 * MS)),
        Band { id: Some(12), ..leads(TWO, 1, 5_020 * MS, None) },
        band(BandKind::Owns, &[CONSUMER], "orders-0", 100 * MS, Some(3_000 * MS)),
        band(BandKind::Owns, &[PRODUCER], "orders-0", 2_500 * MS, None),
        Band { id: Some(9), ..band(BandKind::Down, &[ONE], "", 1_020 * MS, Some(9_000 * MS)) },
        band(BandKind::Cut, &[ONE, TWO], "", 900 * MS, Some(1_020 * MS)),
        band(BandKind::Paused, &[CONSUMER], "", 1_700 * MS, Some(2_700 * MS)),
    ]
}

fn log() -> LogStrip {
    let added = |id, at, lane, from, values: &[&str], is_copy| LogChange {
        id,
        at,
        lane,
        kind: LogChangeKind::Added {
            from,
            to: from + i64::try_from(values.len()).unwrap_or(0),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            is_copy,
        },
    };
    let change = |id, at, lane, kind| LogChange { id, at, lane, kind };
    LogStrip {
        partition: "orders-0".to_owned(),
        changes: vec![
            added(20, 100 * MS, ONE, 0, &["order-1", "order-2"], false),
            added(21, 101 * MS, TWO, 0, &["order-1", "order-2"], true),
            change(22, 102 * MS, ONE, LogChangeKind::HighWatermark(2)),
            change(23, 102 * MS, ONE, LogChangeKind::LastStable(2)),
            added(4, 1_002 * MS, ONE, 2, &["order-3"], false),
            added(25, 6_000 * MS, TWO, 2, &["order-4"], false),
            change(26, 6_001 * MS, TWO, LogChangeKind::HighWatermark(3)),
            change(27, 6_500 * MS, TWO, LogChangeKind::Marker { offset: 3, is_commit: false }),
            change(28, 6_500 * MS, TWO, LogChangeKind::Aborted { from: 2, to: 3 }),
            change(17, 9_003 * MS, ONE, LogChangeKind::Truncated { from: 3, to: 2 }),
            added(29, 9_004 * MS, ONE, 2, &["order-4"], true),
        ],
    }
}

fn commits() -> Vec<Commit> {
    let commit = |id, at, offset, refused: Option<&str>| Commit {
        id,
        at,
        group: "export".to_owned(),
        partition: "orders-0".to_owned(),
        offset,
        refused: refused.map(str::to_owned),
    };
    vec![commit(60, 400 * MS, 2, None), commit(61, 7_000 * MS, 1, Some("illegal generation"))]
}

fn transaction() -> Transaction {
    let state = |id, at, state: &str| TransactionState {
        id,
        at,
        state: state.to_owned(),
        detail: "producer 4/0".to_owned(),
    };
    Transaction {
        name: "export-1".to_owned(),
        states: vec![
            state(70, 6_000 * MS, "Ongoing"),
            state(71, 6_400 * MS, "PrepareAbort"),
            state(72, 6_500 * MS, "CompleteAbort"),
        ],
    }
}

fn narrative() -> Vec<Sentence> {
    let sentence =
        |text: &str, ids: &[EventId]| Sentence { text: text.to_owned(), ids: ids.to_vec() };
    vec![
        sentence(
            "The link between broker-1 and broker-2 is cut: broker-2 copies nothing.",
            &[1, 8],
        ),
        sentence("checkout sends order-3 to broker-1, which leads orders-0.", &[2]),
        sentence("broker-1 appends it at offset 2, and acknowledges it at once.", &[4]),
        sentence("checkout is told that order-3 is at orders-0@2.", &[6]),
        sentence("broker-1 crashes.", &[9]),
        sentence("The controller elects broker-2, which never had offset 2.", &[12]),
        sentence("broker-1 comes back, follows broker-2, and takes offset 2 back.", &[14, 17]),
    ]
}

fn plan() -> Vec<Step> {
    let step = |at: u64, text: &str, is_needed, id| Step {
        at: Some(at),
        text: text.to_owned(),
        is_needed,
        id: Some(id),
    };
    vec![
        step(900 * MS, "cut broker-1 and broker-2, until the crash", Some(true), 1),
        step(1_020 * MS, "crash broker-1 after 3 acknowledgements", Some(true), 9),
        step(1_700 * MS, "pause export-1 for 1 s", Some(false), 33),
    ]
}

fn causes() -> std::collections::BTreeMap<EventId, Vec<EventId>> {
    let causes: [(EventId, &[EventId]); 10] = [
        (2, &[7]),
        (3, &[2]),
        (4, &[3]),
        (5, &[4]),
        (6, &[5]),
        (11, &[10]),
        (12, &[11, 9]),
        (15, &[14]),
        (16, &[15]),
        (17, &[16]),
    ];
    causes.map(|(id, causes)| (id, causes.to_vec())).into()
}
