//! The values of properties: how each type of field is read and written.

use std::time::Duration;

/// A type that a property can have.
pub(crate) trait Value: Sized {
    /// Reads a value; the error says what would be right, as "must be …".
    fn parse(text: &str) -> Result<Self, String>;

    /// Writes the value, or `None` if it is unset.
    fn format(&self) -> Option<String>;
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "must be true or false".to_owned())
    }

    fn format(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u32 {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("must be a whole number from 0 to {}", Self::MAX))
    }

    fn format(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// Milliseconds: Kafka's `*.ms`.
impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let millis: u32 = text
            .parse()
            .ok()
            .filter(|millis| i32::try_from(*millis).is_ok())
            .ok_or_else(|| format!("must be milliseconds from 0 to {}", i32::MAX))?;
        Ok(Self::from_millis(millis.into()))
    }

    fn format(&self) -> Option<String> {
        Some(self.as_millis().to_string())
    }
}

impl Value for Option<String> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("must not be empty".to_owned())
        } else {
            Ok(Some(text.to_owned()))
        }
    }

    fn format(&self) -> Option<String> {
        self.clone()
    }
}

/// Implements [`Value`] for an enum by the names of its values; the first is the one written.
macro_rules! named_values {
    ($type:ty, $($variant:ident = $name:literal $(| $alias:literal)*),+ $(,)?) => {
        impl $crate::config::value::Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($name $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", [$($name),+].join(", "))),
                }
            }

            fn format(&self) -> Option<String> {
                Some(match self { $(Self::$variant => $name,)+ }.to_owned())
            }
        }
    };
}
pub(crate) use named_values;
