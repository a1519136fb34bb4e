//! The picture of a run: who sent what to whom, what became of the logs, who led and owned what,
//! and the story of it; as one HTML file, or as text for a terminal.
//!
//! - [`diagram`]: what a picture shows, as plain data: [`Diagram`];
//! - [`to_html`]: one file without a network, readable without scripts;
//! - [`to_text`]: at most 60 lines.
//!
//! By default only the causal past of the witness is shown. Equal diagrams give equal pictures,
//! byte for byte.

mod axis;
mod chart;
pub mod diagram;
mod gantt;
mod lists;
mod logs;
mod markup;
mod page;
mod scene;
mod space;
mod text;
mod words;

pub use diagram::Diagram;
pub use page::to_html;
pub use text::to_text;
