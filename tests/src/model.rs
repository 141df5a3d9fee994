//! The oracle: a database as a list of commits over sorted maps.
use std::collections::BTreeMap;

/// One keyspace: sorted keys and values.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// One operation of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put(Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
}

/// Applies operations in order.
pub fn apply(map: &mut Map, operations: &[Operation]) {
    for operation in operations {
        match operation {
            Operation::Put(key, value) => {
                map.insert(key.clone(), value.clone());
            }
            Operation::Delete(key) => {
                map.remove(key);
            }
        }
    }
}
