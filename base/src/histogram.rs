//! A latency histogram.
