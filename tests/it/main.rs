//! All integration tests in one binary, one module per subject.
mod model;
mod kill;
mod crash;
mod faults;
mod corruption;
mod api;
mod keyspace;
mod manual;
mod batch;
mod shuttle;
mod snapshot;
mod iterator;
mod concurrency;
mod probe;
mod regressions;
mod corpora;
mod tidy;
