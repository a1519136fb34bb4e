//! `delayed-endtxn` (T01): a commit or abort that is late decides the next transaction.
//!
//! A bank books the two sides of each transfer in one transaction, and aborts it if the transfer is
//! refused meanwhile. `EndTxn` names a producer and its epoch, and with version 1 of transactions
//! these stay the same from one transaction to the next. So one that is late, and that the client
//! has sent again long since, ends whatever is open when it arrives: half of the next transfer is
//! committed or aborted, and the rest of it goes another way. The fix: with version 2 each end
//! raises the epoch, by which a late one is recognized (KIP-890, part 2).
//!
//! See KAFKA-17754, KIP-890, and Jepsen's report on Bufstream 0.1.0.

use std::time::Duration;

use bus_core::{
    Bus, IsolationLevel, NewTopic, Partition, ProducerConfig, ProducerRecord, Recovery, Result,
    TransactionConfig, TransactionalProducer,
};
use serde::{Deserialize, Serialize};

use super::common::value;
use super::read_back::ReadBack;
use crate::catalogue::{Application, Form, Kind, WorstDay};
use crate::lifecycle::Lifecycle;
use crate::patience::{create_topic, patiently};
use crate::report::{Broken, Report};
use crate::setting::Setting;
use crate::store::{Row, Store};

/// The story in the catalogue.
pub const STORY: Application = Application {
    name: "delayed-endtxn",
    title: "A commit or abort that is late decides the next transaction",
    kind: Kind::Story,
    forms: Form::ALL,
    worst_day: WorstDay {
        options: |form| match form {
            Form::AsWritten => "brokers=1&transaction.version=1",
            Form::Sound => "brokers=1&transaction.version=2",
        },
        faults: &["DelayRequest", "CutProcess"],
        horizon: Duration::from_secs(8),
    },
    run: |bus, _, setting| Box::pin(run(bus, setting)),
};

/// The guarantee that the bug breaks: of one transfer, one side is visible.
pub const TORN: &str = "F4 torn transaction";
/// Or this one: a transfer that was refused is visible.
pub const PHANTOM: &str = "F6 phantom commit";

const TOPIC: &str = "bookings";
/// The sides of a transfer, and the partitions that they are booked in.
const SIDES: [(&str, Partition); 2] = [("debit", 0), ("credit", 1)];
const TRANSFERS: usize = 20;
/// Every how many transfers one is refused.
const REFUSED: usize = 2;
/// How often a transfer comes in.
const PACE: Duration = Duration::from_millis(600);
/// Between the two sides, for a look at the other account.
const CHECK: Duration = Duration::from_millis(400);
/// After this the client sends a request again.
const SOCKET_TIMEOUT: &str = "500";

/// An attempt at a transfer.
#[derive(Debug, Serialize, Deserialize)]
struct Attempt {
    name: String,
    transfer: usize,
    outcome: Outcome,
}

/// What the bank was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    Unknown,
    Committed,
    /// And to be tried again.
    Failed,
    Refused,
}

impl Row for Attempt {
    const TABLE: &'static str = "attempts";

    fn key(&self) -> String {
        self.name.clone()
    }
}

/// Books transfers, and looks which of them are there by half.
///
/// # Errors
/// Those that no retry gets over.
pub async fn run(bus: Bus, setting: Setting) -> Result<Report> {
    create_topic(&bus, NewTopic::new(TOPIC).partitions(2)).await?;
    let transfers = setting.size("transfers", 1..=TRANSFERS);
    let (store, life) = (Store::default(), Lifecycle::default());
    let bank = Bank { transfers, store: store.clone() };
    life.process(&bus, "bank", move |bus| bank.clone().open(bus));
    while !is_over(&store, transfers - 1)? && bus.elapsed() < DEADLINE {
        life.check()?;
        tokio::time::sleep(CHECK).await;
    }
    let is_settled = is_over(&store, transfers - 1)?;
    let read = ReadBack::of(&bus, TOPIC, IsolationLevel::ReadCommitted).await?;
    let seen: Vec<_> = read.records.iter().map(value).collect();
    let attempts: Vec<Attempt> = store.all()?;
    let broken = attempts.iter().filter_map(|attempt| judge(attempt, &seen)).collect();
    Ok(read.report(is_settled, broken))
}

/// How long all transfers may take.
const DEADLINE: Duration = Duration::from_mins(5);

/// Whether a transfer is booked or refused.
fn is_over(store: &Store, transfer: usize) -> Result<bool> {
    let ends = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Committed | Outcome::Refused);
    let attempts: Vec<Attempt> = store.all()?;
    Ok(attempts.iter().any(|attempt| attempt.transfer == transfer && ends(attempt)))
}

fn judge(attempt: &Attempt, seen: &[String]) -> Option<Broken> {
    let Attempt { name, outcome, .. } = attempt;
    let is_seen = |(side, _): &(&str, Partition)| seen.contains(&format!("{side} of {name}"));
    let told = match outcome {
        Outcome::Unknown => "the end of which is unknown",
        Outcome::Committed => "which was committed",
        Outcome::Failed | Outcome::Refused => "which was aborted",
    };
    let (guarantee, what) = match SIDES.iter().filter(|side| is_seen(side)).count() {
        1 => (TORN, "one of its two sides only"),
        0 if *outcome == Outcome::Committed => (TORN, "none of its two sides"),
        2 if matches!(outcome, Outcome::Failed | Outcome::Refused) => {
            (PHANTOM, "both of its sides")
        }
        _ => return None,
    };
    Some(Broken { guarantee, sentence: format!("of {name}, {told}, a reader sees {what}") })
}

/// Books transfers.
#[derive(Clone, Debug)]
struct Bank {
    transfers: usize,
    store: Store,
}

impl Bank {
    async fn open(self, bus: Bus) -> Result<()> {
        let mut config = ProducerConfig::default();
        config.set("socket.timeout.ms", SOCKET_TIMEOUT)?;
        let transaction_timeout = Duration::from_secs(10);
        let transaction =
            TransactionConfig { transaction_timeout, ..TransactionConfig::new("bank") };
        let producer = bus.transactional_producer(config, transaction)?;
        patiently(|| producer.init_transactions()).await?;
        for transfer in 0..self.transfers {
            let comes_in = PACE * u32::try_from(transfer).unwrap_or(0);
            tokio::time::sleep(comes_in.saturating_sub(bus.elapsed())).await;
            while !is_over(&self.store, transfer)? {
                let attempts = self.store.all::<Attempt>()?;
                let number = attempts.iter().filter(|other| other.transfer == transfer).count();
                let name = format!("transfer-{transfer:02}, attempt {number}");
                let mut attempt = Attempt { name, transfer, outcome: Outcome::Unknown };
                self.note(&attempt).await?;
                attempt.outcome = book(&*producer, &attempt).await?;
                self.note(&attempt).await?;
            }
        }
        Ok(())
    }

    async fn note(&self, attempt: &Attempt) -> Result<()> {
        let mut transaction = self.store.begin();
        transaction.update(attempt)?;
        Ok(transaction.commit().await?)
    }
}

/// Books a transfer, or aborts it if it is refused or fails.
///
/// # Errors
/// Those after which another producer must go on.
async fn book(producer: &dyn TransactionalProducer, attempt: &Attempt) -> Result<Outcome> {
    producer.begin()?;
    let booked = async {
        for (side, partition) in SIDES {
            if partition > 0 {
                tokio::time::sleep(CHECK).await;
            }
            let record = ProducerRecord::to(TOPIC).partition(partition);
            producer.send(record.value(format!("{side} of {}", attempt.name))).await?;
        }
        if attempt.transfer % REFUSED == REFUSED - 1 {
            patiently(|| producer.abort()).await.map(|()| Outcome::Refused)
        } else {
            patiently(|| producer.commit()).await.map(|()| Outcome::Committed)
        }
    };
    match booked.await {
        Err(error) if error.recovery() == Recovery::Abort => {
            patiently(|| producer.abort()).await.map(|()| Outcome::Failed)
        }
        outcome => outcome,
    }
}
