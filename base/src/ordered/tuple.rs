//! Tuples: their elements, concatenated. That suffices, since no encoding is a prefix of another
//! one.
use super::{FromOrdered, Ordered, OrderedReader};
use crate::error::Result;

macro_rules! tuple {
    ($($name:ident $index:tt),*) => {
        impl<$($name: Ordered),*> Ordered for ($($name,)*) {
            #[inline]
            fn put_ordered(&self, out: &mut Vec<u8>) {
                $(self.$index.put_ordered(out);)*
            }
        }

        impl<$($name: FromOrdered),*> FromOrdered for ($($name,)*) {
            fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<($($name,)*)> {
                Ok(($($name::read_ordered(reader)?,)*))
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

/// The empty tuple takes no bytes.
impl Ordered for () {
    fn put_ordered(&self, _out: &mut Vec<u8>) {}
}

impl FromOrdered for () {
    fn read_ordered(_reader: &mut OrderedReader<'_>) -> Result<()> {
        Ok(())
    }
}
