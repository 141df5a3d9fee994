//! Shortens a failing list of operations: delta debugging (Zeller, Hildebrandt, TSE 2002).
#![allow(clippy::disallowed_methods, reason = "gives up after some real time")]
use std::time::{Duration, Instant};

/// The shortest list found within `limit` for which `fails` holds. REQUIRES: it holds for
/// `operations`.
pub fn shrink<T: Clone>(operations: &[T], limit: Duration, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let start = Instant::now();
    let mut shortest = operations.to_vec();
    // For a planted bug only its detection matters.
    if sapwood_base::planted::any() {
        return shortest;
    }
    let mut portion = shortest.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut any = false;
        while at < shortest.len() {
            if start.elapsed() >= limit {
                return shortest;
            }
            let end = (at + portion).min(shortest.len());
            let without: Vec<T> = shortest[..at].iter().chain(&shortest[end..]).cloned().collect();
            if fails(&without) {
                shortest = without;
                any = true;
            } else {
                at = end;
            }
        }
        match (portion, any) {
            (1, false) => return shortest,
            (1, true) => {}
            _ => portion = portion.div_ceil(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_left() {
        let all: Vec<u32> = (0..100).collect();
        let left = shrink(&all, Duration::from_secs(10), |list| list.contains(&17) && list.contains(&80));
        assert_eq!(left, [17, 80]);
    }
}
