//! What is due and what was missed (the pure planner in [`plan`]), and the short loop around it.
pub mod plan;
