//! The merge of several sorted inputs into one.
