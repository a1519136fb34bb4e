//! The history of a run, the checkers that judge it, and the report.

pub mod digest;
pub mod history;
pub mod record;
pub mod story;

pub use history::History;
pub use record::Recorder;
