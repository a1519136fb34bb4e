//! What was sent, what was seen, and what is wrong with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bus_core::{Offset, Record, RecordMetadata, Result, TopicPartition};

/// What all tasks of a storm write down.
pub(crate) type Ledger = Arc<Mutex<Notes>>;

#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// By value: the outcome of each send, in the order of the calls of its producer.
    pub(crate) sent: BTreeMap<String, Result<RecordMetadata>>,
    /// What the members saw at each place.
    pub(crate) seen: BTreeMap<(TopicPartition, Offset), String>,
    /// What each member was told of its notes in a database.
    pub(crate) noted: Vec<(String, &'static str)>,
    /// What was wrong already.
    pub(crate) wrong: Vec<String>,
}

impl Notes {
    /// A member was given a record.
    pub(crate) fn saw(&mut self, record: &Record) {
        let (place, value) = (place(record), value(record));
        if let Some(before) = self.seen.insert(place.clone(), value.clone())
            && before != value
        {
            self.wrong.push(format!("{place:?} was {before} and is {value}"));
        }
    }

    /// How many records were acknowledged, or may be there.
    pub(crate) fn is_seen(&self, value: &str) -> bool {
        self.seen.values().any(|seen| seen == value)
    }

    /// Compares with the whole log.
    pub(crate) fn judge(&mut self, log: &[Record]) -> Vec<String> {
        let mut wrong = std::mem::take(&mut self.wrong);
        let mut places = BTreeMap::<String, Vec<_>>::new();
        for record in log {
            places.entry(value(record)).or_default().push(place(record));
        }
        for (value, outcome) in &self.sent {
            let found = places.remove(value).unwrap_or_default();
            match (outcome, found.as_slice()) {
                (Ok(metadata), [(partition, offset)]) => {
                    if (&metadata.topic_partition, metadata.offset) != (partition, Some(*offset)) {
                        wrong.push(format!("{value} is at {partition}@{offset}, not {metadata:?}"));
                    }
                }
                (Ok(_), []) => wrong.push(format!("{value} was acknowledged and is lost")),
                (_, [_, _, ..]) => wrong.push(format!("{value} is there twice: {found:?}")),
                (Err(error), [place]) if !error.is_indeterminate() => {
                    wrong.push(format!("{value} is at {place:?} in spite of {error:?}"));
                }
                (Err(_), _) => {}
            }
        }
        wrong.extend(places.keys().map(|value| format!("nobody sent {value}")));
        wrong.extend(self.disagreements(log));
        wrong.extend(disorder(log));
        wrong
    }

    /// What members saw that is not in the log.
    fn disagreements(&self, log: &[Record]) -> Vec<String> {
        let log: BTreeMap<_, _> = log.iter().map(|record| (place(record), value(record))).collect();
        let differs = |(place, value): (&(TopicPartition, Offset), &String)| {
            (log.get(place) != Some(value)).then(|| {
                format!("a member saw {value} at {place:?}, where {:?} is", log.get(place))
            })
        };
        self.seen.iter().filter_map(differs).collect()
    }
}

/// Records of one producer and partition that are not in the order of their numbers.
fn disorder(log: &[Record]) -> Vec<String> {
    let mut last = BTreeMap::<(TopicPartition, String), u32>::new();
    let mut wrong = Vec::new();
    for record in log {
        let value = value(record);
        let Some((producer, number)) = value.split_once(':') else { continue };
        let number = number.parse().unwrap_or(0);
        let key = (record.topic_partition(), producer.to_owned());
        if let Some(before) = last.insert(key, number)
            && before >= number
        {
            wrong.push(format!("{value} is behind {producer}:{before} at {:?}", place(record)));
        }
    }
    wrong
}

fn place(record: &Record) -> (TopicPartition, Offset) {
    (record.topic_partition(), record.offset)
}

fn value(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"")).into_owned()
}
