//! The columns of the table: on what the suite runs.

/// One backend with so many brokers. Topics have as many replicas as there are brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name of its results.
    pub id: &'static str,
    /// The head of the column.
    pub title: &'static str,
    /// How many brokers it has.
    pub brokers: i32,
}

/// The simulator with one broker.
pub const SIM: Column = Column { id: "sim", title: "Simulator", brokers: 1 };

/// The simulator with three brokers.
pub const SIM3: Column = Column { id: "sim3", title: "Simulator, 3 brokers", brokers: 3 };

/// A real Kafka with one broker.
pub const KAFKA: Column = Column { id: "kafka", title: "Kafka", brokers: 1 };

/// A real Kafka with three brokers.
pub const KAFKA3: Column = Column { id: "kafka3", title: "Kafka, 3 brokers", brokers: 3 };

/// All columns, in order.
pub const COLUMNS: [Column; 4] = [SIM, SIM3, KAFKA, KAFKA3];
