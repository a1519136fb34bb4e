//! A process that a case has started, by its reports.

use std::sync::Arc;

use bus_core::{
    Consumer, ConsumerConfig, ConsumerExt, RecordMetadata, StartAt, Topic, TopicPartition,
};
use parking_lot::Mutex;

use crate::cx::{Cx, STEP, quick_consumer};
use crate::failure::{Failure, Verdict};
use crate::fixture::Fault;
use crate::history::Event;
use crate::script::Report;

/// A process that plays a script, and what it has reported.
#[derive(Debug)]
pub struct Process {
    name: String,
    consumer: Arc<dyn Consumer>,
    reports: Mutex<Vec<Report>>,
}

impl Process {
    /// The process of this name, which reports to a topic.
    ///
    /// # Errors
    /// If the reports cannot be read.
    pub fn new(cx: &Cx, name: String, reports: &Topic) -> Verdict<Self> {
        let consumer = cx.raw_bus().consumer(quick_consumer(ConsumerConfig::default()))?;
        consumer.assign(&[(TopicPartition::new(reports, 0), StartAt::Beginning)])?;
        Ok(Self { name, consumer, reports: Mutex::default() })
    }

    /// What it has reported so far.
    pub fn reports(&self) -> Vec<Report> {
        self.reports.lock().clone()
    }

    /// How many of its reports are like this.
    pub fn count(&self, is_like: impl Fn(&Report) -> bool) -> usize {
        self.reports.lock().iter().filter(|report| is_like(report)).count()
    }

    /// How many records it was given.
    pub fn delivered(&self) -> usize {
        self.count(|report| matches!(report, Report::Delivered(..)))
    }

    /// Reads its reports once, for a moment.
    ///
    /// # Errors
    /// If they cannot be read, or say that the process has failed.
    pub async fn listen(&self) -> Verdict {
        for record in self.consumer.poll_records(STEP).await? {
            let report: Report = serde_json::from_slice(
                record.value.as_deref().unwrap_or_default(),
            )
            .map_err(|error| Failure::assertion(format!("a report is not readable: {error}")))?;
            if let Report::Failed(error) = &report {
                return Err(Failure::assertion(format!("process {}: {error}", self.name)));
            }
            self.reports.lock().push(report);
        }
        Ok(())
    }

    /// Reads its reports until the condition holds.
    ///
    /// # Errors
    /// If they cannot be read; a deadline, if the condition does not come to hold.
    pub async fn until(&self, cx: &Cx, what: &str, condition: impl Fn() -> bool) -> Verdict {
        cx.until(what, async || {
            self.listen().await?;
            Ok(condition().then_some(()))
        })
        .await
    }

    /// Ends it at once, without a word to anyone.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn crash(&self, cx: &Cx) -> Verdict {
        cx.inflict(&Fault::Crash(self.name.clone()))
    }

    /// Lets it stand still.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn pause(&self, cx: &Cx) -> Verdict {
        cx.inflict(&Fault::Pause(self.name.clone()))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn resume(&self, cx: &Cx) -> Verdict {
        cx.inflict(&Fault::Resume(self.name.clone()))
    }

    /// Starts it again after a crash.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn restart(&self, cx: &Cx) -> Verdict {
        cx.inflict(&Fault::Restart(self.name.clone()))
    }

    /// Cuts it off from the brokers.
    ///
    /// # Errors
    /// Why it cannot be done.
    pub fn cut(&self, cx: &Cx) -> Verdict {
        cx.inflict(&Fault::Cut(self.name.clone()))
    }

    /// Adds what it committed to the history, of which it is no part itself.
    pub fn note_commits(&self, cx: &Cx, group_id: &str) {
        for report in self.reports() {
            if let Report::Committed(place, offset) = report {
                let commit = cx.history().next_commit();
                let (group_id, offsets) = (group_id.to_owned(), vec![(place, offset.into())]);
                cx.note(Event::Commit { commit, group_id, offsets });
                cx.note(Event::Committed { commit, outcome: Ok(()) });
            }
        }
    }

    /// What it has published and was acknowledged.
    pub fn published(&self) -> Vec<(String, RecordMetadata)> {
        let reports = self.reports();
        let published = reports.into_iter().filter_map(|report| match report {
            Report::Published { value, at: (topic_partition, offset) } => {
                let offset = Some(offset);
                Some((value, RecordMetadata { topic_partition, offset, timestamp: None }))
            }
            _ => None,
        });
        published.collect()
    }
}
