//! The tests of trees, in one binary. A failing random test prints its replay command.
mod support;
mod model;
mod cursor;
mod long;
mod load;
mod space;
mod crash;
mod faults;
mod damage;
mod golden;
