//! From what a checker found to the recorded events that prove it.

use bus_check::history::{Answer, Entry, What};
use bus_check::picture::diagram::Verdict;
use bus_check::verdict::Explanation;
use bus_check::{Finding, History, Question};
use bus_core::{Offset, TopicPartition};
use bus_sim::event::{EventSeq, Place};
use bus_sim::fact::{Fact, TransactionFact};
use bus_sim::{SimEvent, SimEventKind};

use super::Subject;

/// What the picture of a finding is about: its verdict, and the recorded events that prove it. The
/// history and the events must be of one run.
pub fn of_finding(events: &[SimEvent], history: &History, finding: &Finding) -> Subject {
    let anomaly = &finding.anomaly;
    let mut witness: Vec<EventSeq> = anomaly
        .witness
        .iter()
        .filter_map(|entry| of_entry(events, history, history.entry(*entry)))
        .collect();
    witness.extend(anomaly.events.iter().filter_map(|number| of_number(events, *number)));
    if let Some(question) = &anomaly.question {
        witness.extend(of_question(events, question));
    }
    let mut reason = String::new();
    match &finding.explanation {
        Some(Explanation::Event(cause)) => {
            reason.clone_from(&cause.sentence);
            witness.extend(of_number(events, cause.event));
        }
        Some(Explanation::Entry(entry)) => {
            witness.extend(of_entry(events, history, history.entry(*entry)));
        }
        None => {}
    }
    witness.sort_unstable();
    witness.dedup();
    Subject {
        verdict: Verdict {
            is_violation: finding.verdict.is_violation(),
            word: finding.verdict.name().to_owned(),
            guarantee: finding.guarantee.to_string(),
            sentence: anomaly.sentence.clone(),
            reason,
            ..Verdict::default()
        },
        witness,
        ..Subject::default()
    }
}

/// The events that prove what became of an offset: that it was acknowledged, that a leader was
/// elected after that, and that it was taken back or lost.
pub fn witness_of(
    events: &[SimEvent],
    partition: &TopicPartition,
    offset: Offset,
) -> Vec<EventSeq> {
    let delivered = events.iter().position(|event| is_delivered(event, partition, offset));
    let after = &events[delivered.unwrap_or(0)..];
    let is_elected = |event: &&SimEvent| {
        matches!(&event.kind, SimEventKind::Fact(Fact::Leader { topic_partition, leader, .. })
            if topic_partition == partition && leader.is_some())
    };
    let mut witness = Vec::new();
    witness.extend(delivered.map(|index| events[index].seq));
    witness.extend(after.iter().find(is_elected).map(|event| event.seq));
    witness.extend(after.iter().find(|event| is_gone(event, partition, offset)).map(|e| e.seq));
    witness.sort_unstable();
    witness
}

/// What proves the answer to a question.
fn of_question(events: &[SimEvent], question: &Question) -> Vec<EventSeq> {
    let appended = |partition: &TopicPartition, offset: Offset| {
        let found = events.iter().rfind(|event| is_appended(event, partition, offset));
        found.map(|event| event.seq)
    };
    match question {
        Question::Lost { topic_partition, offset } => witness_of(events, topic_partition, *offset),
        Question::Duplicated { topic_partition, offsets } => {
            let first = offsets.iter().take(3);
            first.filter_map(|offset| appended(topic_partition, *offset)).collect()
        }
        Question::Reordered { topic_partition, earlier, later } => {
            let both = [*earlier, *later].into_iter();
            both.filter_map(|offset| appended(topic_partition, offset)).collect()
        }
        Question::OldEnd { .. } => Vec::new(),
        Question::Moved { topic_partition, from, to } => {
            let offset = (*from).min(*to);
            let gone = events.iter().find(|event| is_gone(event, topic_partition, offset));
            gone.map(|event| event.seq).into_iter().collect()
        }
        Question::Redelivered { topic_partition, offset, .. } => {
            let polls = events.iter().filter(|event| is_polled(event, topic_partition, *offset));
            polls.take(2).map(|event| event.seq).collect()
        }
        Question::OldCommit { group_id: name, .. }
        | Question::ZombieCommit { group_id: name, .. }
        | Question::Fenced { name, .. } => {
            let fenced = events.iter().filter(|event| is_fenced(event, name));
            fenced.take(2).map(|event| event.seq).collect()
        }
    }
}

/// The fact of that number in the trace.
fn of_number(events: &[SimEvent], number: u64) -> Option<EventSeq> {
    let is_it =
        |event: &&SimEvent| event.number == number && matches!(event.kind, SimEventKind::Fact(_));
    events.iter().find(is_it).map(|event| event.seq)
}

/// The event that an entry of the history tells of: the call, or what the application was told.
fn of_entry(events: &[SimEvent], history: &History, entry: &Entry) -> Option<EventSeq> {
    let process = history.process(history.client(entry.client).process);
    let is_there = |event: &&SimEvent| {
        let of: &str = match &event.place {
            Place::Process(of) => of,
            Place::Client { process: of, .. } => of,
            Place::World | Place::Controller | Place::Broker(_) => return false,
        };
        of == process && event.at.as_nanos() <= entry.at
    };
    let is_it = |event: &&SimEvent| match &entry.what {
        What::Invoke(..) => matches!(event.kind, SimEventKind::Called { .. }),
        What::Ok(_, Answer::Delivered { partition, offset: Some(offset), .. }) => {
            is_delivered(event, &history.partition(*partition), *offset)
        }
        What::Ok(_, Answer::Records(records)) => records.first().is_some_and(|record| {
            is_polled(event, &history.partition(record.partition), record.offset)
        }),
        What::Ok(..) | What::Fail(..) | What::Info(..) => matches!(
            event.kind,
            SimEventKind::Returned { .. }
                | SimEventKind::Rebalance(_)
                | SimEventKind::Delivered { .. }
        ),
        What::Note(_) => false,
    };
    events.iter().rfind(|event| is_there(event) && is_it(event)).map(|event| event.seq)
}

fn is_delivered(event: &SimEvent, partition: &TopicPartition, offset: Offset) -> bool {
    match &event.kind {
        SimEventKind::Delivered { topic_partition, base_offset: Some(base), count } => {
            let end = base + i64::try_from(*count).unwrap_or(0);
            topic_partition == partition && (*base..end).contains(&offset)
        }
        _ => false,
    }
}

fn is_appended(event: &SimEvent, partition: &TopicPartition, offset: Offset) -> bool {
    match &event.kind {
        SimEventKind::Fact(Fact::Appended { topic_partition, base_offset, count, .. }) => {
            let end = base_offset + i64::from(*count);
            topic_partition == partition && (*base_offset..end).contains(&offset)
        }
        _ => false,
    }
}

fn is_gone(event: &SimEvent, partition: &TopicPartition, offset: Offset) -> bool {
    matches!(&event.kind, SimEventKind::Fact(
        Fact::Truncated { topic_partition, from, to, .. }
        | Fact::PageCacheLost { topic_partition, from, to, .. },
    ) if topic_partition == partition && (*to..*from).contains(&offset))
}

fn is_polled(event: &SimEvent, partition: &TopicPartition, offset: Offset) -> bool {
    let SimEventKind::Polled(spans) = &event.kind else { return false };
    spans.iter().any(|(of, first, last)| of == partition && (*first..=*last).contains(&offset))
}

fn is_fenced(event: &SimEvent, name: &str) -> bool {
    match &event.kind {
        SimEventKind::Fact(Fact::MemberLeft { group_id, .. }) => &**group_id == name,
        SimEventKind::Fact(Fact::Transaction(TransactionFact::Fenced {
            transactional_id, ..
        })) => &**transactional_id == name,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bus_sim::SimTime;

    use super::*;

    #[test]
    fn a_lost_offset_is_proved_by_its_acknowledgment_the_election_and_the_loss() {
        let truncated = Fact::Truncated { broker: 1, topic_partition: orders(), from: 4, to: 3 };
        let leader = Fact::Leader { topic_partition: orders(), leader: Some(2), leader_epoch: 1 };
        let kinds = vec![
            fact(leader.clone()),
            SimEventKind::Delivered { topic_partition: orders(), base_offset: Some(2), count: 2 },
            fact(leader),
            fact(truncated),
        ];
        let question = Question::Lost { topic_partition: orders(), offset: 3 };
        assert_eq!(of_question(&numbered(kinds), &question), [2, 3, 4]);
    }

    #[test]
    fn repeated_work_is_proved_by_two_polls() {
        let poll = |first, last| SimEventKind::Polled(vec![(orders(), first, last)]);
        let kinds = vec![poll(0, 1), poll(2, 5), poll(4, 4), poll(4, 9)];
        let (group_id, topic_partition) = ("g".to_owned(), orders());
        let question = Question::Redelivered { group_id, topic_partition, offset: 4 };
        assert_eq!(of_question(&numbered(kinds), &question), [2, 3]);
    }

    #[test]
    fn who_was_fenced_is_found_by_name() {
        let left = |group: &str| {
            let (group_id, member_id) = (group.into(), "m".into());
            fact(Fact::MemberLeft { group_id, member_id, reason: "session expired" })
        };
        let question = Question::Fenced { name: "b".to_owned(), since: 0 };
        assert_eq!(of_question(&numbered(vec![left("a"), left("b")]), &question), [2]);
    }

    fn orders() -> TopicPartition {
        TopicPartition::new("orders", 0)
    }

    fn fact(fact: Fact) -> SimEventKind {
        SimEventKind::Fact(fact)
    }

    fn numbered(kinds: Vec<SimEventKind>) -> Vec<SimEvent> {
        let events = (1..).zip(kinds).map(|(seq, kind)| SimEvent {
            seq,
            number: seq,
            at: SimTime::from_nanos(seq),
            cause: None,
            place: Place::World,
            kind,
        });
        events.collect()
    }
}
