//! Every type against the order of its values: golden bytes, generated pairs, and bytes that no
//! encoder wrote.
use super::*;
use crate::error::ErrorKind;
use std::cmp::Ordering;
use std::fmt::Debug;

/// Pseudo-random numbers, the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number with any bit length, mostly near an edge.
    fn edgy(&mut self) -> u64 {
        let near = self.below(3).wrapping_sub(1);
        match self.below(4) {
            0 => near,
            1 => (1u64 << self.below(64)).wrapping_add(near),
            2 => u64::MAX >> self.below(64),
            _ => self.next(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(12)).map(|_| [0, 1, 2, b'a', 0xFE, 0xFF][self.below(6) as usize]).collect()
    }

    fn text(&mut self) -> String {
        (0..self.below(6))
            .map(|_| ['\0', '\u{1}', 'a', 'b', 'é', '\u{10FFFF}'][self.below(6) as usize])
            .collect()
    }

    fn float(&mut self) -> f64 {
        let edges =
            [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, f64::MIN_POSITIVE];
        if self.below(2) == 0 { edges[self.below(9) as usize] } else { f64::from_bits(self.edgy()) }
    }
}

/// Checks all invariants on `count` values: order, prefix freedom, round trip.
fn check<T: Ordered + FromOrdered + Debug>(
    count: usize,
    mut value: impl FnMut(&mut Numbers) -> T,
    compare: impl Fn(&T, &T) -> Ordering,
) {
    let mut numbers = Numbers(count as u64);
    let pairs: Vec<(T, Vec<u8>)> = (0..count)
        .map(|_| {
            let value = value(&mut numbers);
            let bytes = value.to_ordered();
            (value, bytes)
        })
        .collect();
    for (value, bytes) in &pairs {
        let back = T::from_ordered(bytes).unwrap();
        assert_eq!(compare(value, &back), Ordering::Equal, "{value:?}");
        assert_eq!(back.to_ordered(), *bytes, "{value:?}");
        for (other, other_bytes) in &pairs {
            assert_eq!(compare(value, other), bytes.cmp(other_bytes), "{value:?} and {other:?}");
            assert!(bytes == other_bytes || !other_bytes.starts_with(bytes), "{value:?} begins {other:?}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(
                T::from_ordered(&bytes[..cut]).unwrap_err().kind(),
                ErrorKind::Corruption,
                "{value:?}"
            );
        }
        assert!(T::from_ordered(&[bytes.as_slice(), b"\0"].concat()).is_err(), "{value:?} and a byte");
    }
}

#[test]
fn values_have_these_bytes() {
    let cases: &[(Vec<u8>, &[u8])] = &[
        (0x0102u16.to_ordered(), b"\x01\x02"),
        (0x0102_0304u32.to_ordered(), b"\x01\x02\x03\x04"),
        (7u64.to_ordered(), b"\0\0\0\0\0\0\0\x07"),
        (7u128.to_ordered(), b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07"),
        (0i8.to_ordered(), b"\x80"),
        ((-1i16).to_ordered(), b"\x7F\xFF"),
        (1i32.to_ordered(), b"\x80\0\0\x01"),
        (i64::MIN.to_ordered(), b"\0\0\0\0\0\0\0\0"),
        ((-1i128).to_ordered(), b"\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
        (1.0f32.to_ordered(), b"\xBF\x80\0\0"),
        (0.0f64.to_ordered(), b"\x80\0\0\0\0\0\0\0"),
        ((-0.0f64).to_ordered(), b"\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
        ((-1.0f64).to_ordered(), b"\x40\x0F\xFF\xFF\xFF\xFF\xFF\xFF"),
        ((false, true).to_ordered(), b"\0\x01"),
        ('A'.to_ordered(), b"\0\0\0A"),
        ("Oslo".to_ordered(), b"Oslo\0"),
        (b"\0\x01\x02"[..].to_ordered(), b"\x01\x01\x01\x02\x02\0"),
        ([0u8, 1, 2].to_ordered(), b"\0\x01\x02"),
        (None::<u8>.to_ordered(), b"\0"),
        (Some(5u8).to_ordered(), b"\x01\x05"),
        (Reverse("a\0").to_ordered(), b"\x9E\xFE\xFE\xFF"),
        (("a", Some(1u8), Reverse(2u8)).to_ordered(), b"a\0\x01\x01\xFD"),
        (().to_ordered(), b""),
    ];
    for (i, (bytes, expected)) in cases.iter().enumerate() {
        assert_eq!(bytes, expected, "case {i}");
    }
}

#[test]
fn bytes_sort_as_integers_do() {
    check(256, |numbers| numbers.next() as u8, Ord::cmp);
    check(256, |numbers| numbers.next() as i8, Ord::cmp);
    check(200, |numbers| numbers.edgy() as u16, Ord::cmp);
    check(200, |numbers| numbers.edgy() as i16, Ord::cmp);
    check(200, |numbers| numbers.edgy() as u32, Ord::cmp);
    check(200, |numbers| numbers.edgy() as i32, Ord::cmp);
    check(200, Numbers::edgy, Ord::cmp);
    check(200, |numbers| numbers.edgy() as i64, Ord::cmp);
    check(200, |numbers| u128::from(numbers.edgy()) << numbers.below(65), Ord::cmp);
    check(200, |numbers| (i128::from(numbers.edgy() as i64)) << numbers.below(65), Ord::cmp);
    check(4, |numbers| numbers.below(2) == 1, Ord::cmp);
    check(50, |numbers| char::from_u32(numbers.below(0x11_0000) as u32).unwrap_or('x'), Ord::cmp);
}

#[test]
fn bytes_sort_as_floats_do() {
    check(300, Numbers::float, f64::total_cmp);
    check(300, |numbers| numbers.float() as f32, f32::total_cmp);
}

#[test]
fn bytes_sort_as_strings_do() {
    check(300, Numbers::bytes, Ord::cmp);
    check(200, Numbers::text, Ord::cmp);
    check(100, |numbers| [numbers.below(3) as u8, numbers.below(3) as u8, 255], Ord::cmp);
}

#[test]
fn bytes_sort_as_tuples_options_and_reversed_values_do() {
    check(200, |numbers| (numbers.bytes(), numbers.bytes()), Ord::cmp);
    check(200, |numbers| (numbers.below(2) == 0).then(|| numbers.text()), Ord::cmp);
    check(200, |numbers| Reverse(numbers.bytes()), Ord::cmp);
    check(200, |numbers| Reverse(Reverse((numbers.text(), numbers.edgy() as i32))), Ord::cmp);
    check(100, |numbers| Reverse((numbers.below(2) == 0).then(|| (numbers.bytes(), 1u8))), Ord::cmp);
    check(
        200,
        |numbers| {
            let number = (numbers.below(3) > 0).then(|| numbers.edgy() as i16);
            (numbers.below(3) as u8, Reverse(numbers.text()), number, numbers.bytes(), numbers.below(2) == 0)
        },
        Ord::cmp,
    );
    check(
        200,
        |numbers| (numbers.float(), Reverse(numbers.float())),
        |a, b| a.0.total_cmp(&b.0).then(b.1.0.total_cmp(&a.1.0)),
    );
}

#[test]
fn other_bytes_are_errors() {
    assert!(bool::from_ordered(b"\x02").is_err());
    assert!(char::from_ordered(b"\0\0\xD8\0").is_err());
    assert!(<Option<u8>>::from_ordered(b"\x02\x05").is_err());
    assert!(String::from_ordered(b"\xFF\0").is_err());
    assert!(<Vec<u8>>::from_ordered(b"\x01\x03\0").is_err());
    assert!(<Vec<u8>>::from_ordered(b"a\x01\0").is_err());
    assert!(<Reverse<Vec<u8>>>::from_ordered(b"\xFE\xFC\xFF").is_err());
    let error = <(u8, String)>::from_ordered(b"\x01abc").unwrap_err();
    assert_eq!(error.to_string(), "malformed ordered value: a string has no end (position 1)");
}

#[test]
fn a_reader_goes_on_after_reversed_values() {
    let mut bytes = Vec::new();
    Reverse(("a", 1u8)).put_ordered(&mut bytes);
    "b".put_ordered(&mut bytes);
    let mut reader = OrderedReader::new(&bytes);
    assert_eq!(reader.read::<Reverse<(String, u8)>>().unwrap().0, ("a".to_string(), 1));
    assert_eq!(reader.read::<String>().unwrap(), "b");
    assert!(reader.is_empty());
}
