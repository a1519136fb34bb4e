//! A history for people: one line per entry, with names in place of ids.

use std::fmt;

use bus_core::{RebalanceKind, StartAt};

use super::{
    Answer, Call, ClientId, EntryId, Failure, Handled, History, Note, OperationId, PartitionId,
    Role, SeenRecord, SentRecord, What,
};

impl History {
    /// An entry as a line: time, client, what.
    pub fn line(&self, id: EntryId) -> impl fmt::Display {
        let entry = self.entry(id);
        Shown(move |f: &mut fmt::Formatter<'_>| {
            write!(f, "{:>12} s  {:<24} ", seconds(entry.at), self.title(entry.client))?;
            self.what(f, &entry.what)
        })
    }

    /// The last entries as text, without polls that gave nothing; the evidence of a failure.
    pub fn excerpt(&self, most: usize) -> String {
        let is_told = |what: &What| match what {
            What::Invoke(_, Call::Poll) | What::Note(Note::Made) => false,
            What::Ok(_, Answer::Records(records)) => !records.is_empty(),
            _ => true,
        };
        let told: Vec<_> = self.iter().filter(|(_, entry)| is_told(&entry.what)).collect();
        let left_out = told.len().saturating_sub(most);
        let mut text = format!("history ({left_out} earlier entries left out):\n");
        for (id, _) in &told[left_out..] {
            text += "  ";
            text += &self.line(*id).to_string();
            text += "\n";
        }
        text
    }

    /// A client: its process, the incarnation if it is not the first, its role, its id.
    pub fn title(&self, id: ClientId) -> String {
        let client = self.client(id);
        let process = self.process(client.process);
        let role = match client.role {
            Role::Producer(_) => "producer",
            Role::Consumer(_) => "consumer",
            Role::Admin => "admin",
        };
        match client.incarnation {
            1 => format!("{process} {role} {id}"),
            incarnation => format!("{process}/{incarnation} {role} {id}"),
        }
    }

    fn what(&self, f: &mut fmt::Formatter<'_>, what: &What) -> fmt::Result {
        match what {
            What::Invoke(id, Call::Send(sent)) => self.send(f, *id, sent),
            What::Invoke(id, call) => {
                write!(f, "{id} ")?;
                self.call(f, call)
            }
            What::Ok(id, answer) => {
                write!(f, "{id} ok ")?;
                self.answer(f, answer)
            }
            What::Fail(id, Failure { kind, .. }) => write!(f, "{id} fail {kind}"),
            What::Info(id, Some(Failure { kind, .. })) => write!(f, "{id} info {kind}"),
            What::Info(id, None) => write!(f, "{id} info given up"),
            What::Note(note) => self.note(f, note),
        }
    }

    fn send(&self, f: &mut fmt::Formatter<'_>, id: OperationId, sent: &SentRecord) -> fmt::Result {
        write!(f, "{id} send to {}", self.topics[sent.topic.index()])?;
        if let Some(partition) = sent.partition {
            write!(f, "-{partition}")?;
        }
        if let Some((cause, offset)) = sent.cause {
            write!(f, " because of {}@{offset}", self.partition(cause))?;
        }
        write!(f, " [{:08x}]", sent.digest >> 32)
    }

    fn call(&self, f: &mut fmt::Formatter<'_>, call: &Call) -> fmt::Result {
        let topic = |id: &super::TopicId| self.topics[id.index()].clone();
        match call {
            Call::Send(_) => f.write_str("send"),
            Call::Flush => f.write_str("flush"),
            Call::PartitionsFor(id) => write!(f, "partitions of {}", topic(id)),
            Call::CloseProducer { timeout } => write!(f, "close within {timeout:?}"),
            Call::InitTransactions => f.write_str("init transactions"),
            Call::Begin => f.write_str("begin"),
            Call::SendOffsets { group, generation, offsets } => {
                write!(f, "send offsets {} generation {generation}", self.name(*group))?;
                self.offsets(f, offsets)
            }
            Call::CommitTransaction => f.write_str("commit transaction"),
            Call::AbortTransaction => f.write_str("abort transaction"),
            Call::Subscribe(topics) => {
                f.write_str("subscribe")?;
                topics.iter().try_for_each(|id| write!(f, " {}", topic(id)))
            }
            Call::Unsubscribe => f.write_str("unsubscribe"),
            Call::Assign(partitions) => {
                f.write_str("assign")?;
                partitions
                    .iter()
                    .try_for_each(|(id, from)| write!(f, " {}{}", self.partition(*id), At(*from)))
            }
            Call::Poll => f.write_str("poll"),
            Call::Complete { kind, partitions } => {
                write!(f, "complete {}", kind_name(*kind))?;
                self.list(f, partitions)
            }
            Call::Seek(id, to) => write!(f, "seek {}{}", self.partition(*id), At(*to)),
            Call::Pause(partitions) => {
                f.write_str("pause")?;
                self.list(f, partitions)
            }
            Call::Resume(partitions) => {
                f.write_str("resume")?;
                self.list(f, partitions)
            }
            Call::Commit(offsets) => {
                f.write_str("commit")?;
                self.offsets(f, offsets)
            }
            Call::StoreOffsets(offsets) => {
                f.write_str("store offsets")?;
                self.offsets(f, offsets)
            }
            Call::Committed(partitions) => {
                f.write_str("committed")?;
                self.list(f, partitions)
            }
            Call::Watermarks(id) => write!(f, "watermarks {}", self.partition(*id)),
            Call::CloseConsumer => f.write_str("close"),
            Call::CreateTopic { .. }
            | Call::CreatePartitions { .. }
            | Call::DescribeTopic(_)
            | Call::DeleteTopic(_)
            | Call::DeleteRecords(..)
            | Call::GroupOffsets(_)
            | Call::AlterGroupOffsets { .. }
            | Call::DeleteGroup(_) => self.administration(f, call),
        }
    }

    fn administration(&self, f: &mut fmt::Formatter<'_>, call: &Call) -> fmt::Result {
        let topic = |id: &super::TopicId| self.topics[id.index()].clone();
        match call {
            Call::CreateTopic { topic: id, partitions } => {
                write!(f, "create topic {} of {partitions} partitions", topic(id))
            }
            Call::CreatePartitions { topic: id, partitions } => {
                write!(f, "grow topic {} to {partitions} partitions", topic(id))
            }
            Call::DescribeTopic(id) => write!(f, "describe topic {}", topic(id)),
            Call::DeleteTopic(id) => write!(f, "delete topic {}", topic(id)),
            Call::DeleteRecords(id, before) => {
                write!(f, "delete records {} before {before}", self.partition(*id))
            }
            Call::GroupOffsets(group) => write!(f, "offsets of group {}", self.name(*group)),
            Call::AlterGroupOffsets { group, offsets } => {
                write!(f, "alter offsets of group {}", self.name(*group))?;
                self.offsets(f, offsets)
            }
            Call::DeleteGroup(group) => write!(f, "delete group {}", self.name(*group)),
            _ => Ok(()),
        }
    }

    fn answer(&self, f: &mut fmt::Formatter<'_>, answer: &Answer) -> fmt::Result {
        match answer {
            Answer::Done => f.write_str("done"),
            Answer::Delivered { partition, offset: Some(offset), .. } => {
                write!(f, "delivered at {}@{offset}", self.partition(*partition))
            }
            Answer::Delivered { partition, offset: None, .. } => {
                write!(f, "delivered to {}", self.partition(*partition))
            }
            Answer::Records(records) => self.records(f, records),
            Answer::Rebalance { kind, partitions, generation } => {
                f.write_str(kind_name(*kind))?;
                self.list(f, partitions)?;
                generation.map_or(Ok(()), |generation| write!(f, " generation {generation}"))
            }
            Answer::Committed(offsets) => {
                f.write_str("committed")?;
                offsets.iter().try_for_each(|offset| match offset {
                    Some(offset) => write!(f, " {offset}"),
                    None => f.write_str(" none"),
                })
            }
            Answer::Watermarks { low, high } => write!(f, "from {low} to {high}"),
            Answer::GroupOffsets(offsets) => offsets.iter().try_for_each(|(id, offset, end)| {
                write!(f, " {}@{offset} of {end}", self.partition(*id))
            }),
            Answer::Partitions(partitions) => write!(f, "{partitions} partitions"),
            Answer::LogStart(offset) => write!(f, "log start {offset}"),
        }
    }

    /// Records as runs: `orders-0@3..5 orders-1@0`.
    fn records(&self, f: &mut fmt::Formatter<'_>, records: &[SeenRecord]) -> fmt::Result {
        f.write_str(if records.is_empty() { "nothing" } else { "records" })?;
        let follows =
            |a: &SeenRecord, b: &SeenRecord| a.partition == b.partition && a.offset + 1 == b.offset;
        for run in records.chunk_by(follows) {
            let (first, last) = (&run[0], &run[run.len() - 1]);
            write!(f, " {}@{}", self.partition(first.partition), first.offset)?;
            match run {
                [only] => write!(f, " [{:08x}]", only.digest >> 32)?,
                _ => write!(f, "..{}", last.offset)?,
            }
        }
        Ok(())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, partitions: &[PartitionId]) -> fmt::Result {
        if partitions.is_empty() {
            return f.write_str(" nothing");
        }
        partitions.iter().try_for_each(|id| write!(f, " {}", self.partition(*id)))
    }

    fn offsets(
        &self,
        f: &mut fmt::Formatter<'_>,
        offsets: &[(PartitionId, bus_core::Offset)],
    ) -> fmt::Result {
        offsets.iter().try_for_each(|(id, offset)| write!(f, " {}@{offset}", self.partition(*id)))
    }

    fn note(&self, f: &mut fmt::Formatter<'_>, note: &Note) -> fmt::Result {
        match note {
            Note::Made => f.write_str("made"),
            Note::Dropped => f.write_str("dropped"),
            Note::HandleStart(id, offset) => write!(f, "handling {}@{offset}", self.partition(*id)),
            Note::HandleEnd(id, offset, handled) => {
                let how = match handled {
                    Handled::Done => "done",
                    Handled::Skipped => "skipped",
                    Handled::Dead => "dead",
                    Handled::Failed => "failed",
                };
                write!(f, "handled {}@{offset} {how}", self.partition(*id))
            }
            Note::Foreign(topic) => write!(f, "others write to {}", self.topics[topic.index()]),
            Note::Quiesced => f.write_str("quiesced"),
            Note::Audited { partition, low, high } => {
                write!(f, "audited {} from {low} to {high}", self.partition(*partition))
            }
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(id, _)| writeln!(f, "{}", self.line(id)))
    }
}

/// Nanoseconds as seconds, exactly to the microsecond and without floating point.
pub fn seconds(nanos: u64) -> impl fmt::Display {
    let micros = nanos / 1_000;
    Shown(move |f: &mut fmt::Formatter<'_>| {
        f.pad(&format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000))
    })
}

struct Shown<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

struct At(StartAt);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StartAt::Committed => f.write_str(" from the commit"),
            StartAt::Beginning => f.write_str(" from the beginning"),
            StartAt::End => f.write_str(" from the end"),
            StartAt::Offset(offset) => write!(f, "@{offset}"),
            StartAt::Timestamp(time) => write!(f, " from {time}"),
        }
    }
}

const fn kind_name(kind: RebalanceKind) -> &'static str {
    match kind {
        RebalanceKind::Assigned => "assigned",
        RebalanceKind::Revoked => "revoked",
        RebalanceKind::Lost => "lost",
    }
}
