//! Tests of tables from outside: against a model, and against wrong bytes and failing files.
mod damage;
mod model;
mod support;
