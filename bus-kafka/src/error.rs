//! One table from librdkafka's error codes to the bus's error: kind, recovery, and effect.
//!
//! Codes from 0 up are Kafka's own and mostly have a kind of the same number; those below -1 are
//! librdkafka's. A code that neither table knows is [`ErrorKind::Backend`] with the code in the
//! message, so the table is total.

use bus_core::{Effect, Error, ErrorKind, Operation, Recovery};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

/// An error code of librdkafka or of a broker, as a number.
///
/// A number and not [`RDKafkaErrorCode`], because a newer broker may send one that the enum lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

impl Code {
    /// The code as librdkafka's enum has it.
    pub(crate) fn known(self) -> Option<RDKafkaErrorCode> {
        RDKafkaRespErr::try_from(self.0).ok().map(Into::into)
    }

    /// The code as an error, unless it is "no error".
    pub(crate) const fn failure(self) -> Option<Self> {
        if self.0 == 0 { None } else { Some(self) }
    }

    /// What happened, and what differs from the kind's own recovery and effect.
    fn meaning(self) -> Meaning {
        let kind = i16::try_from(self.0)
            .ok()
            .filter(|code| *code > 0)
            .and_then(ErrorKind::from_code)
            .map(Meaning::of);
        kind.unwrap_or_else(|| self.known().map_or(Meaning::of(ErrorKind::Backend), meaning))
    }

    /// The error of this code. The message names the code where the kind alone does not.
    pub(crate) fn error(self, message: impl Into<String>) -> Error {
        let Meaning { kind, recovery, effect } = self.meaning();
        let mut message: String = message.into();
        if message.is_empty() {
            message = self.description();
        }
        if kind == ErrorKind::Backend {
            message = format!("{message} (librdkafka code {})", self.0);
        }
        let error = Error::new(kind, message).with_recovery(recovery);
        match effect {
            Effect::None => error.definite(),
            Effect::Unknown => error.indeterminate(),
        }
    }

    /// What librdkafka says about the code.
    pub(crate) fn description(self) -> String {
        match self.known() {
            // `Display` is "Name (description)".
            Some(code) => {
                let text = code.to_string();
                let inner = text.split_once('(').map(|(_, rest)| rest.trim_end_matches(')'));
                inner.unwrap_or(&text).to_owned()
            }
            None => "unknown error".to_owned(),
        }
    }

    /// Whether librdkafka recovers from it alone, so that a poll has nothing to say about it.
    pub(crate) fn is_passing(self) -> bool {
        use RDKafkaErrorCode as C;
        matches!(
            self.known(),
            Some(
                C::BrokerTransportFailure
                    | C::Resolve
                    | C::AllBrokersDown
                    | C::OperationTimedOut
                    | C::TimedOutQueue
                    | C::WaitingForCoordinator
                    | C::NodeUpdate
                    | C::BrokerDestroy
                    | C::DestroyBroker
                    | C::LeaderNotAvailable
                    | C::NotLeaderForPartition
                    | C::RequestTimedOut
                    | C::BrokerNotAvailable
                    | C::ReplicaNotAvailable
                    | C::NetworkException
                    | C::CoordinatorLoadInProgress
                    | C::CoordinatorNotAvailable
                    | C::NotCoordinator
                    | C::RebalanceInProgress
                    | C::OffsetNotAvailable
                    | C::FencedLeaderEpoch
                    | C::UnknownLeaderEpoch
                    | C::UnstableOffsetCommit
                    | C::PartitionEOF
                    | C::RebootstrapRequired
            )
        )
    }
}

impl From<RDKafkaErrorCode> for Code {
    fn from(code: RDKafkaErrorCode) -> Self {
        Self(code as i32)
    }
}

/// The error of an rdkafka call.
pub(crate) fn from_rdkafka(error: &KafkaError, operation: Operation) -> Error {
    if let KafkaError::ClientConfig(_, description, key, value) = error {
        let message = if is_secret(key) {
            format!("property {key}: its value is not accepted")
        } else {
            format!("property {key}={value:?}: {description}")
        };
        return Error::new(ErrorKind::InvalidConfig, message).with_operation(operation);
    }
    let mapped = match error.rdkafka_error_code() {
        Some(code) => Code::from(code).error(String::new()),
        None => match error {
            KafkaError::ClientCreation(message) => {
                Error::new(ErrorKind::InvalidConfig, message.clone())
            }
            KafkaError::AdminOpCreation(message) => {
                Error::new(ErrorKind::InvalidArgument, message.clone())
            }
            KafkaError::Nul(_) => {
                Error::new(ErrorKind::InvalidArgument, "a name contains a NUL byte")
            }
            other => Error::new(ErrorKind::Backend, other.to_string()),
        },
    };
    mapped.with_operation(operation).with_source(error.clone())
}

/// Whether the value of a property does not belong in a message; librdkafka's text repeats it.
fn is_secret(property: &str) -> bool {
    ["password", "secret", "passphrase", ".pem", "oauthbearer.config"]
        .iter()
        .any(|part| property.contains(part))
}

/// What the bus says about a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meaning {
    kind: ErrorKind,
    recovery: Recovery,
    effect: Effect,
}

impl Meaning {
    const fn of(kind: ErrorKind) -> Self {
        Self { kind, recovery: kind.recovery(), effect: kind.effect() }
    }

    const fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    const fn definite(mut self) -> Self {
        self.effect = Effect::None;
        self
    }

    const fn indeterminate(mut self) -> Self {
        self.effect = Effect::Unknown;
        self
    }
}

/// The codes that do not have a kind of their own number.
fn meaning(code: RDKafkaErrorCode) -> Meaning {
    use RDKafkaErrorCode as C;
    let of = Meaning::of;
    match code {
        // Brokers that cannot be reached, for now.
        C::BrokerTransportFailure | C::Resolve => {
            of(ErrorKind::NetworkException).recovery(Recovery::Retry)
        }
        C::AllBrokersDown => of(ErrorKind::AllBrokersDown),
        C::BrokerNotAvailable | C::UnknownBroker | C::NodeUpdate | C::DestroyBroker => {
            of(ErrorKind::AllBrokersDown)
        }
        C::WaitingForCoordinator => of(ErrorKind::CoordinatorNotAvailable),
        // Time.
        C::OperationTimedOut => of(ErrorKind::TimedOut),
        // It never left the client.
        C::TimedOutQueue => of(ErrorKind::TimedOut).definite(),
        C::MessageTimedOut => of(ErrorKind::MessageTimedOut),
        C::PollExceeded => of(ErrorKind::MaxPollExceeded),
        // Topics, partitions, offsets.
        C::UnknownTopic | C::UnknownPartition => of(ErrorKind::UnknownTopicOrPartition),
        C::AutoOffsetReset | C::NoOffset => of(ErrorKind::NoOffset),
        C::LogTruncation => of(ErrorKind::OffsetOutOfRange),
        // The producer's buffer.
        C::QueueFull => of(ErrorKind::QueueFull),
        C::PurgeQueue => of(ErrorKind::Purged).definite(),
        C::PurgeInflight => of(ErrorKind::Purged).indeterminate(),
        C::ISRInsufficient => of(ErrorKind::NotEnoughReplicas),
        C::InvalidDifferentRecord => of(ErrorKind::InvalidRecord).recovery(Recovery::Retry),
        C::BadMessage | C::BadCompression | C::InvalidMessageSize | C::Underflow => {
            of(ErrorKind::CorruptMessage)
        }
        // The group.
        C::AssignmentLost => of(ErrorKind::IllegalGeneration),
        C::UnknownGroup => of(ErrorKind::InvalidConfig),
        C::FencedMemberEpoch | C::StaleMemberEpoch => of(ErrorKind::IllegalGeneration),
        C::UnreleasedInstanceId => of(ErrorKind::FencedInstanceId),
        C::UnsupportedAssignor => of(ErrorKind::InconsistentGroupProtocol),
        // Fencing and the end of a client.
        C::Fenced => of(ErrorKind::ProducerFenced),
        C::Fatal | C::GaplessGuarantee | C::Inconsistent => of(ErrorKind::Fatal),
        // The client was closed while the request was under way.
        C::BrokerDestroy => of(ErrorKind::Closed).indeterminate(),
        // Security.
        C::Authentication
        | C::SSL
        | C::UnsupportedSASLMechanism
        | C::IllegalSASLState
        | C::SaslAuthenticationFailed
        | C::UnacceptableCredential => of(ErrorKind::AuthenticationFailed),
        C::SecurityDisabled
        | C::DelegationTokenAuthDisabled
        | C::DelegationTokenNotFound
        | C::DelegationTokenOwnerMismatch
        | C::DelegationTokenRequestNotAllowed
        | C::DelegationTokenAuthorizationFailed
        | C::DelegationTokenExpired
        | C::InvalidPrincipalType
        | C::PrincipalDeserializationFailure => of(ErrorKind::AuthenticationFailed),
        other => rest(other),
    }
}

/// The rest of the table: misuse, features, and trouble inside a broker.
fn rest(code: RDKafkaErrorCode) -> Meaning {
    use RDKafkaErrorCode as C;
    let of = Meaning::of;
    match code {
        // The call is wrong.
        C::InvalidArgument | C::InvalidType | C::UnknownProtocol => of(ErrorKind::InvalidArgument),
        C::State
        | C::Conflict
        | C::PreviousInProgress
        | C::InProgress
        | C::ExistingSubscription
        | C::ReadOnly
        | C::Noop => of(ErrorKind::InvalidState),
        C::NotConfigured => of(ErrorKind::InvalidConfig),
        C::NotImplemented => of(ErrorKind::Unsupported),
        C::UnsupportedFeature
        | C::UnsupportedForMessageFormat
        | C::UnsupportedCompressionType
        | C::InvalidUpdateVersion
        | C::FeatureUpdateFailed => of(ErrorKind::UnsupportedVersion),
        C::TopicDeletionDisabled => of(ErrorKind::PolicyViolation),
        C::KeySerialization
        | C::ValueSerialization
        | C::KeyDeserialization
        | C::ValueDeserialization => of(ErrorKind::Serialization),
        // The cluster is on its way to another state.
        C::StaleControllerEpoch | C::StaleBrokerEpoch => of(ErrorKind::NotController),
        C::FetchSessionIdNotFound | C::InvalidFetchSessionEpoch => {
            of(ErrorKind::NotLeaderOrFollower)
        }
        C::ListenerNotFound
        | C::PreferredLeaderNotAvailable
        | C::EligibleLeadersNotAvailable
        | C::KafkaStorageError => of(ErrorKind::LeaderNotAvailable),
        C::Unknown => of(ErrorKind::UnknownServerError),
        C::Retry
        | C::WaitCache
        | C::Interrupted
        | C::Outdated
        | C::OperationNotAttempted
        | C::ReassignmentInProgress
        | C::RebootstrapRequired => of(ErrorKind::Backend).recovery(Recovery::Retry),
        _ => of(ErrorKind::Backend),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that have no kind: librdkafka's internal markers, and what no client meets.
    const WITHOUT_KIND: &[RDKafkaErrorCode] = {
        use RDKafkaErrorCode as C;
        &[
            C::Begin,
            C::End,
            C::EndAll,
            C::Fail,
            C::CriticalSystemResource,
            C::FileSystem,
            C::PartitionEOF,
            C::AssignPartitions,
            C::RevokePartitions,
            C::Partial,
            C::NoEnt,
            C::Retry,
            C::WaitCache,
            C::Interrupted,
            C::Outdated,
            C::Application,
            C::OperationNotAttempted,
            C::LogDirNotFound,
            C::ReassignmentInProgress,
            C::ElectionNotNeeded,
            C::NoReassignmentInProgress,
            C::ResourceNotFound,
            C::DuplicateResource,
            C::InconsistentVoterSet,
            C::UnknownSubscriptionId,
            C::TelemetryTooLarge,
            C::RebootstrapRequired,
        ]
    };

    fn all_codes() -> impl Iterator<Item = (Code, RDKafkaErrorCode)> {
        (-300..1000).map(Code).filter_map(|code| Some((code, code.known()?)))
    }

    #[test]
    fn every_code_that_librdkafka_knows_has_a_kind_or_stands_in_the_list() {
        let mut count = 0;
        for (code, known) in all_codes().filter(|(code, _)| code.0 != 0) {
            count += 1;
            let kind = code.error("").kind();
            let listed = WITHOUT_KIND.contains(&known);
            assert_eq!(kind == ErrorKind::Backend, listed, "{known:?} is mapped to {kind}");
        }
        assert!(count > 150, "librdkafka knows more codes than {count}");
    }

    #[test]
    fn kafkas_codes_keep_their_numbers() {
        for (code, known) in all_codes().filter(|(code, _)| code.0 > 0) {
            let kind = code.error("").kind();
            if let Some(number) = kind.code()
                && ErrorKind::from_code(i16::try_from(code.0).unwrap()).is_some()
            {
                assert_eq!(i32::from(number), code.0, "{known:?}");
            }
        }
    }

    #[test]
    fn a_code_from_the_future_is_a_backend_error_that_names_it() {
        let error = Code(4711).error("");
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(error.is_indeterminate());
        assert!(error.to_string().contains("4711"), "{error}");
        // librdkafka's enum lacks this one, the contract has it.
        assert_eq!(Code(120).error("").kind(), ErrorKind::TransactionAbortable);
    }

    #[test]
    fn what_never_left_the_client_definitely_did_not_happen() {
        for (code, indeterminate) in [
            (RDKafkaErrorCode::PurgeQueue, false),
            (RDKafkaErrorCode::PurgeInflight, true),
            (RDKafkaErrorCode::TimedOutQueue, false),
            (RDKafkaErrorCode::OperationTimedOut, true),
            (RDKafkaErrorCode::MessageSizeTooLarge, false),
        ] {
            assert_eq!(Code::from(code).error("").is_indeterminate(), indeterminate, "{code:?}");
        }
    }

    #[test]
    fn secrets_stay_out_of_messages() {
        let config = |key: &str| {
            let (text, value) = ("hunter2 is wrong".to_owned(), "hunter2".to_owned());
            let code = rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID;
            KafkaError::ClientConfig(code, text, key.to_owned(), value)
        };
        for (key, is_shown) in [("sasl.password", false), ("ssl.key.pem", false), ("acks", true)] {
            let error = from_rdkafka(&config(key), Operation::Connect);
            assert_eq!(error.to_string().contains("hunter2"), is_shown, "{error}");
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn messages_are_the_descriptions_of_librdkafka() {
        let error = Code::from(RDKafkaErrorCode::UnknownTopic).error("");
        assert_eq!(error.message(), "Local: Unknown topic");
    }
}
