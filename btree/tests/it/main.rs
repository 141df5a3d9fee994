//! The tests of trees, in one binary. A random one that fails prints the command that replays it.
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
