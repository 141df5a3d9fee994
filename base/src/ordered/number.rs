//! Numbers: big-endian, so that bytes compare like them. Signed ones and floats are transformed so
//! that negative ones come first.
use super::{FromOrdered, Ordered, OrderedReader, corrupt};
use crate::error::Result;

macro_rules! unsigned {
    ($($number:ty),*) => {$(
        impl Ordered for $number {
            #[inline]
            fn put_ordered(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }

        impl FromOrdered for $number {
            fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<$number> {
                Ok(<$number>::from_be_bytes(reader.array()?))
            }
        }
    )*};
}

/// The sign bit of two's complement is inverted, so negative numbers have the lower bytes.
macro_rules! signed {
    ($($number:ty as $bits:ty),*) => {$(
        impl Ordered for $number {
            #[inline]
            fn put_ordered(&self, out: &mut Vec<u8>) {
                (*self as $bits ^ <$number>::MIN as $bits).put_ordered(out);
            }
        }

        impl FromOrdered for $number {
            fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<$number> {
                Ok((<$bits>::read_ordered(reader)? ^ <$number>::MIN as $bits) as $number)
            }
        }
    )*};
}

/// Floats are sign and magnitude: the sign of positive ones is inverted, and every bit of negative
/// ones.
macro_rules! float {
    ($($number:ty as $bits:ty),*) => {$(
        impl Ordered for $number {
            #[inline]
            fn put_ordered(&self, out: &mut Vec<u8>) {
                let sign = !(<$bits>::MAX >> 1);
                let bits = self.to_bits();
                (if bits & sign == 0 { bits ^ sign } else { !bits }).put_ordered(out);
            }
        }

        impl FromOrdered for $number {
            fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<$number> {
                let sign = !(<$bits>::MAX >> 1);
                let bits = <$bits>::read_ordered(reader)?;
                Ok(<$number>::from_bits(if bits & sign == 0 { !bits } else { bits ^ sign }))
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64, u128);
signed!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);
float!(f32 as u32, f64 as u64);

impl Ordered for bool {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl FromOrdered for bool {
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<bool> {
        let position = reader.position;
        match u8::read_ordered(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(corrupt(position, "neither 0 nor 1")),
        }
    }
}

impl Ordered for char {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        u32::from(*self).put_ordered(out);
    }
}

impl FromOrdered for char {
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<char> {
        let position = reader.position;
        char::from_u32(u32::read_ordered(reader)?).ok_or_else(|| corrupt(position, "no such character"))
    }
}
