//! External tests of tables: compared with a model, and with wrong bytes and failing files.
mod damage;
mod model;
mod support;
