//! Tests of tables from outside: against a model, and against wrong bytes and failing files.
mod model;
mod support;
