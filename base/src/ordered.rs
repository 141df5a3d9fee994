//! Byte strings that sort as the values in them do.
pub mod composite;
