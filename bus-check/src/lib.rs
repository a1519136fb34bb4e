//! The history of a run, the checkers that judge it, and the report.

pub mod check;
pub mod digest;
pub mod environment;
pub mod guarantee;
pub mod history;
pub mod model;
pub mod record;
pub mod report;
pub mod story;
pub mod truth;
pub mod verdict;

pub use environment::{CommitMode, Durability, Environment, Removal};
pub use guarantee::Guarantee;
pub use history::History;
pub use model::Model;
pub use record::{Handling, Recorder};
pub use report::Report;
pub use truth::{Cause, GroundTruth, NoTruth, Question, Truth};
pub use verdict::{Finding, Judgment, Outcome, Verdict, judge, judge_with};
