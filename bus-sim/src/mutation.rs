//! Planted bugs: each breaks one guarantee, and a named conformance case must catch it.
//!
//! A mutation is looked up where the correct code is, so that the bug and the right way stand side
//! by side. The table mutation → case is in the conformance suite (`tests/tests/mutants.rs`).

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name, as it is written in tables and URLs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The mutation of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutation| mutation.name() == name)
            }
        }
    };
}

mutations! {
    /// Broker: a fetch response holds its first batch twice.
    DeliveredTwice = "delivered-twice",
    /// Client: every member of a group takes all partitions.
    EveryMemberGetsEveryRecord = "every-member-gets-every-record",
    /// Broker: a commit is stored one record too low.
    CommitRewound = "commit-rewound",
    /// Client: a newly assigned partition starts one record too late.
    RecordSkippedAtRebalance = "record-skipped-at-rebalance",
    /// Client: the partitioner is off by one partition.
    KeyToAnotherPartition = "key-to-another-partition",
    /// Client: the records of a batch are put in reverse order.
    BatchReversed = "batch-reversed",
    /// Broker: values lose what is behind 64 KiB.
    PayloadCut = "payload-cut",
    /// Client: bytes that are no UTF-8 are replaced.
    NonUtf8Mangled = "non-utf8-mangled",
    /// Broker: the generation of a commit is not checked.
    ZombieCommitAccepted = "zombie-commit-accepted",
    /// Client: closing a producer reports records as delivered that it drops.
    AcknowledgedInFlightLostOnClose = "acknowledged-in-flight-lost-on-close",
    /// Broker: headers are dropped.
    HeadersLost = "headers-lost",
    /// Broker: sequence numbers are not checked, so a retry is appended again.
    SequenceIgnored = "sequence-ignored",
    /// Client: `auto.offset.reset` is taken for earliest.
    ResetPolicyIgnored = "reset-policy-ignored",
    /// Client: a consumer that saw no record for a minute stops fetching.
    ConsumerDiesWhenIdle = "consumer-dies-when-idle",
    /// Client: a send after close is reported as delivered and dropped.
    PublishAfterCloseDropped = "publish-after-close-dropped",
    /// Client: auto commit covers what was fetched, not what was delivered.
    CommitPassesUnfinishedRecord = "commit-passes-unfinished-record",
    /// Broker: the time of the append replaces the record's timestamp.
    TimestampLost = "timestamp-lost",
    /// Broker: a null value becomes an empty one.
    NullBecomesEmpty = "null-becomes-empty",
    /// Broker: an acknowledgement names the next offset.
    AckedWithWrongOffset = "acked-with-wrong-offset",
    /// Client: paused partitions are delivered.
    PauseIgnored = "pause-ignored",
    /// Client: records fetched before a seek are delivered after it.
    SeekIgnored = "seek-ignored",
    /// Broker: members never expire.
    SessionNeverExpires = "session-never-expires",
    /// Broker: a sync returns the assignment of the generation before.
    StaleAssignment = "stale-assignment",
    /// Broker: what a coordinator wrote counts before it is replicated.
    CommitAckedBeforeReplicated = "commit-acked-before-replicated",
    /// Broker: a coordinator that takes over loads nothing.
    CoordinatorLoadsNothing = "coordinator-loads-nothing",
    /// Client: a consumer does not ask a new leader whether it has what was read before.
    TruncationNotDetected = "truncation-not-detected",
    /// Client: an idempotent producer sends to a new leader while batches to the one before are in
    /// flight, and goes on with another producer id when their order is refused.
    NewLeaderNotAwaited = "new-leader-not-awaited",
    /// Controller: a leader that was replaced may still say who is in sync.
    StaleLeaderNotFenced = "stale-leader-not-fenced",
    /// Controller: any replica that is alive may be elected, in sync or not.
    ElectedOutOfSync = "elected-out-of-sync",
    /// Broker: a duplicate batch is answered as out of order instead of with its offset.
    DuplicateAnsweredAsError = "duplicate-answered-as-error",
    /// Client: a transaction is committed before its records are delivered.
    CommitBeforeFlush = "commit-before-flush",
    /// Client: a transaction is committed although some of its records were not delivered.
    CommitIgnoresFailures = "commit-ignores-failures",
    /// Client: records are taken for aborted by offset alone, whoever produced them.
    AbortFilterIgnoresProducer = "abort-filter-ignores-producer",
    /// Client: the end of a transaction is delivered as a record.
    MarkerDelivered = "marker-delivered",
    /// Broker: aborted transactions are not named to those that read committed records.
    AbortedRecordVisible = "aborted-record-visible",
    /// Broker: the next record takes the offset of a marker.
    MarkerOffsetReused = "marker-offset-reused",
    /// Broker: the epochs of transactional producers are not checked.
    ZombieTransactionAccepted = "zombie-transaction-accepted",
    /// Broker: offsets that are sent to a transaction count at once.
    OffsetsBeforeCommit = "offsets-before-commit",
    /// Broker: those that read committed records read up to the high watermark.
    OpenTransactionVisible = "open-transaction-visible",
    /// Broker: a commit of several partitions leaves the last one without its marker.
    MarkerMissing = "marker-missing",
    /// Broker: a transaction is never aborted for its age.
    TransactionNeverTimesOut = "transaction-never-times-out",
    /// Broker: an offset is served while a transaction is about to change it.
    UnstableOffsetServed = "unstable-offset-served",
    /// Broker: the generation of offsets that are sent to a transaction is not checked.
    TransactionOfOldGenerationAccepted = "transaction-of-old-generation-accepted",
    /// Broker: the high watermark is the end of the leader's log.
    WatermarkAheadOfInSync = "watermark-ahead-of-in-sync",
    /// Broker: a new follower truncates to its high watermark.
    TruncatedToWatermark = "truncated-to-watermark",
    /// Broker: a follower whose log diverges keeps what its leader does not have.
    DivergenceIgnored = "divergence-ignored",
    /// Broker: `acks=all` is answered as soon as the leader has the records.
    AckedBeforeReplicated = "acked-before-replicated",
    /// Broker: `min.insync.replicas` is taken for 1.
    MinInsyncReplicasIgnored = "min-insync-replicas-ignored",
    /// Broker: consumers read up to the end of the leader's log.
    ReadAboveWatermark = "read-above-watermark",
    /// Broker: the leader epoch that a client knows of is not checked.
    LeaderEpochIgnored = "leader-epoch-ignored",
    // Logs, acknowledgements, producers, and sessions: guarantees A to D.
    /// Broker: a duplicate batch is answered as if it had been appended last.
    DuplicateAnsweredWithLogEnd = "duplicate-answered-with-log-end",
    /// Broker: a duplicate batch uses up offsets, though it is not appended.
    DuplicateTakesOffsets = "duplicate-takes-offsets",
    /// Broker: the log is said to start with its newest batch.
    EarliestIsNewestBatch = "earliest-is-newest-batch",
    /// Client: what was fetched ahead is lost with the connection, and not fetched again.
    BufferLostWithConnection = "buffer-lost-with-connection",
    /// Broker: a batch that would reach into the next segment is acknowledged and not written.
    BatchLostAtRoll = "batch-lost-at-roll",
    /// Client: what ran out of time in flight is said to have failed for certain.
    TimeoutCalledDefinite = "timeout-called-definite",
    /// Broker: a new leader tells an end before it knows what is committed.
    EndToldTooEarly = "end-told-too-early",
    /// Broker: a crash of the process loses the last batch of each log.
    TailLostAtRestart = "tail-lost-at-restart",
    /// Client: records are reported as delivered when they are sent.
    AckedWhenSent = "acked-when-sent",
    /// Client: a batch whose request is lost is neither sent again nor reported.
    FailedBatchForgotten = "failed-batch-forgotten",
    /// Client: nobody is told of the delivery of a batch that was sent again.
    RetryDeliveredSilently = "retry-delivered-silently",
    /// Client: a batch that is sent behind another one in flight is reported as delivered.
    PipelinedAckedWhenSent = "pipelined-acked-when-sent",
    /// Broker: the epochs of those who append are not checked, only of those who end transactions.
    ZombieAppendAccepted = "zombie-append-accepted",
    /// Broker: a producer that asks again for the end of a transaction is taken for an older one.
    EndSentAgainFenced = "end-sent-again-fenced",
    /// Client: the first record of a batch is left out if a poll goes on with it.
    FirstOfBatchSkipped = "first-of-batch-skipped",
    /// Client: what a poll has no room for is dropped with its batch.
    PollDropsTheRest = "poll-drops-the-rest",
    /// Broker: the end that is told is the high watermark that was written to the disk last.
    EndOfCheckpointTold = "end-of-checkpoint-told",
    /// Client: `max.poll.records` is counted by partition.
    MaxPollRecordsPerPartition = "max-poll-records-per-partition",
    // E: groups and their commits.
    /// Client: the leader of a cooperative group gives a partition away before its owner let go.
    HandedOverUnrevoked = "handed-over-unrevoked",
    /// Broker: all partitions of a commit are given the offset of the last.
    CommitMixedUp = "commit-mixed-up",
    /// Client: without a committed offset, a partition starts at its end, whatever the policy.
    NoOffsetMeansEnd = "no-offset-means-end",
    /// Client: the committed offset is taken for that of the last record, not of the next.
    CommitTakenForLastRecord = "commit-taken-for-last-record",
    /// Client: an eager member joins again before the application has completed the revocation.
    JoinsBeforeRevoked = "joins-before-revoked",
    /// Client: a cooperative member is shown its whole assignment as newly assigned.
    AssignedAgain = "assigned-again",
    /// Broker: a coordinator that takes over begins the generations of its groups anew.
    GenerationNotLoaded = "generation-not-loaded",
    /// Broker: what was sent over a connection before it closed is dropped with it.
    SentBeforeCloseDropped = "sent-before-close-dropped",
    // F: transactions.
    /// Client: what comes after an aborted transaction of a producer is taken for aborted, too.
    AbortNeverEnds = "abort-never-ends",
    /// Broker: the markers of an abort say that the transaction committed.
    AbortMarkedAsCommit = "abort-marked-as-commit",
    /// Broker: offsets that were sent to a transaction count although it is aborted.
    AbortedOffsetsCount = "aborted-offsets-count",
    /// Broker: all brokers give out producer ids from one block.
    ProducerIdsOverlap = "producer-ids-overlap",
    /// Broker: a new producer does not end what the one before left open.
    OpenTransactionForgotten = "open-transaction-forgotten",
    // G: replicas.
    /// Controller: who was eligible to lead stays so when enough others are in sync again.
    EligibleForTooLong = "eligible-for-too-long",
    /// Controller: a broker that comes back from an unclean shutdown stays eligible to lead.
    UncleanRestartForgotten = "unclean-restart-forgotten",
    /// Broker: a leader that was replaced leads on.
    DeposedLeaderLeadsOn = "deposed-leader-leads-on",
    /// Broker: a follower that comes back takes the high watermark back to where its log ends.
    WatermarkTakenBack = "watermark-taken-back",
    /// Broker: a follower joins those in sync before it has all that is committed.
    JoinsBehindWatermark = "joins-behind-watermark",
    // H: progress.
    /// Client: a commit whose answer was lost is never sent again.
    CommitNeverRepeated = "commit-never-repeated",
    /// Controller: a broker that comes back leads nothing, though nobody else does.
    LeaderlessForEver = "leaderless-for-ever",
    /// Broker: a leader does not hear that a follower has registered anew.
    RegistrationNotHeard = "registration-not-heard",
    /// Broker: heartbeats do not keep a member alive.
    HeartbeatNotCounted = "heartbeat-not-counted",
    /// Client: closing a producer waits until all is delivered, for as long as that takes.
    CloseIgnoresDeadline = "close-ignores-deadline",
}
