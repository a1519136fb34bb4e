//! Configuration of clients: plain structs, and one table from Kafka's property names to fields.
//!
//! The names are librdkafka's, with Java's where they differ (`buffer.memory` has no counterpart).
//! [`ProducerConfig::set`] and [`ConsumerConfig::set`] take any property of librdkafka: one that
//! has a field sets it, any other goes to [`properties`](ProducerConfig::properties) and so to the
//! backend, and an unknown one is an error that names the nearest known. Properties in a bus URL
//! are set the same way on every client and win over what the code says: the operator has the last
//! word.

mod consumer;
mod known;
mod producer;
mod value;

pub use consumer::{Assignor, ConsumerConfig, IsolationLevel, OffsetReset};
pub use known::{Client, is_known_property};
pub use producer::{Acks, CompressionType, ProducerConfig, TransactionConfig};

use crate::error::{Error, ErrorKind};

/// Maps property names to the fields of a configuration struct; the first name of a field is the
/// one that is written, the others are read only.
macro_rules! property_table {
    (
        $config:ident, $client:expr,
        $($name:literal $(| $alias:literal)* => $field:ident),+ $(,)?
    ) => {
        impl $config {
            /// The property names that have a field, each field's first name only.
            pub const PROPERTIES: &'static [&'static str] = &[$($name),+];

            /// Sets a property by its Kafka name.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidConfig`](crate::ErrorKind) for an unknown property, or for a
            /// value that it cannot have.
            pub fn set(&mut self, name: &str, value: &str) -> $crate::error::Result<()> {
                match name {
                    $($name $(| $alias)* => {
                        self.$field = $crate::config::value::Value::parse(value)
                            .map_err(|wrong| $crate::config::invalid_value(name, value, &wrong))?;
                    })+
                    _ => {
                        $crate::config::known::check(name, $client)?;
                        self.properties.insert(name.to_owned(), value.to_owned());
                    }
                }
                Ok(())
            }

            /// Every property that has a value, by its Kafka name: the fields, then
            /// [`properties`](Self::properties).
            pub fn to_properties(&self) -> Vec<(String, String)> {
                let fields = [$(($name, $crate::config::value::Value::format(&self.$field))),+];
                let fields = fields.into_iter().filter_map(|(name, value)| {
                    Some((name.to_owned(), value?))
                });
                let rest = self.properties.iter();
                fields.chain(rest.map(|(name, value)| (name.clone(), value.clone()))).collect()
            }
        }
    };
}
pub(crate) use property_table;

fn invalid_value(name: &str, value: &str, wrong: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, format!("property {name}={value:?} {wrong}"))
}

fn conflict(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
