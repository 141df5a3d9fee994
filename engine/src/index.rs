//! Secondary indexes: B+ trees that the engine keeps beside the rows of a keyspace.
pub mod extractor;
