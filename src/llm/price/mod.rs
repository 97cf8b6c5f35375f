//! What calls cost.

mod nano;

pub use nano::Nano;
