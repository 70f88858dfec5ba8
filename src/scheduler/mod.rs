//! What is due and what was missed (a pure planner), and the short loop around it.
pub mod plan;
