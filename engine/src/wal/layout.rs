//! The lengths of the segments of one log, which follow from the log's length: a short log has
//! short segments.
//!
//! The first segment is short, and each one after it four times as long, up to the full length. So
//! a log takes a few times the room that it needs, whatever the full length is, and a log that is
//! written at full speed has segments of the full length after a few of them. Segments never become
//! shorter again: memtables determine how much log is needed, and only a full one fills a segment
//! of the full length.
use super::pool::SegmentOptions;
use sapwood_base::format::log_record::UNIT_BYTES;
use sapwood_base::format::log_segment::DATA_OFFSET;

/// Ratio of the lengths of neighbouring segments, until the full length.
const GROWTH: usize = 4;

/// The lengths of all segments. Units are counted from the start of the log.
pub(super) struct Layout {
    /// Start of each segment that is shorter than the others.
    short: Vec<u64>,
    /// Start of the first one of full length.
    full_start: u64,
    /// Units of one of full length.
    pub(super) full_units: u64,
}

/// A unit of the log within its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The segment's number.
    pub(super) number: u64,
    /// Units before it in the segment.
    pub(super) offset: u64,
    /// Units of the segment.
    pub(super) units: u64,
}

impl Layout {
    pub(super) fn new(options: SegmentOptions) -> Layout {
        let units = |bytes: usize| ((bytes - DATA_OFFSET) / UNIT_BYTES) as u64;
        let (mut short, mut full_start) = (Vec::new(), 0);
        let mut bytes = options.first_bytes;
        while bytes < options.bytes {
            short.push(full_start);
            full_start += units(bytes);
            bytes = bytes.saturating_mul(GROWTH);
        }
        Layout { short, full_start, full_units: units(options.bytes) }
    }

    /// The place of a unit.
    #[inline]
    pub(super) fn place(&self, unit: u64) -> Place {
        match unit.checked_sub(self.full_start) {
            Some(past) => Place {
                number: self.short.len() as u64 + past / self.full_units,
                offset: past % self.full_units,
                units: self.full_units,
            },
            None => self.short_place(unit),
        }
    }

    /// The place of a unit in one of the short segments.
    fn short_place(&self, unit: u64) -> Place {
        let number = self.short.partition_point(|start| *start <= unit) - 1;
        let offset = unit - self.short[number];
        Place { number: number as u64, offset, units: self.units_of(number as u64) }
    }

    /// The first unit of a segment.
    pub(super) fn start_of(&self, number: u64) -> u64 {
        match self.short.get(number as usize) {
            Some(start) => *start,
            None => self.full_start + (number - self.short.len() as u64) * self.full_units,
        }
    }

    /// The unit after a segment.
    pub(super) fn end_of(&self, number: u64) -> u64 {
        self.start_of(number + 1)
    }

    /// The units of a segment.
    pub(super) fn units_of(&self, number: u64) -> u64 {
        self.end_of(number) - self.start_of(number)
    }

    /// The length of a segment's file in bytes.
    pub(super) fn file_bytes(&self, number: u64) -> u64 {
        self.units_of(number) * UNIT_BYTES as u64 + DATA_OFFSET as u64
    }

    /// The number of segments that reach up to `unit`.
    pub(super) fn count_to(&self, unit: u64) -> u64 {
        if unit == 0 { 0 } else { self.place(unit - 1).number + 1 }
    }

    /// Limit of segments that a record of `units` can lie in, wherever it begins.
    pub(super) fn most_for(&self, units: u64) -> u64 {
        self.short.len() as u64 + units.div_ceil(self.full_units)
    }

    /// Number of segments of full length before segment `number`.
    pub(super) fn full_before(&self, number: u64) -> u64 {
        number.saturating_sub(self.short.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(first_bytes: usize, bytes: usize) -> Layout {
        Layout::new(SegmentOptions { first_bytes, bytes, kept: 1, mapped: true })
    }

    #[test]
    fn segments_grow_to_the_full_length_and_follow_without_gaps() {
        for (first, full, lengths) in [
            (8 << 10, 512 << 10, &[8 << 10, 32 << 10, 128 << 10, 512 << 10, 512 << 10][..]),
            (8 << 10, 64 << 10, &[8 << 10, 32 << 10, 64 << 10]),
            (64 << 10, 64 << 10, &[64 << 10, 64 << 10]),
            (1 << 20, 64 << 10, &[64 << 10]),
        ] {
            let layout = layout(first, full);
            let mut unit = 0;
            for (number, bytes) in lengths.iter().enumerate() {
                let (number, units) = (number as u64, ((bytes - DATA_OFFSET) / UNIT_BYTES) as u64);
                assert_eq!(layout.file_bytes(number), *bytes as u64);
                assert_eq!(layout.count_to(unit), number);
                assert_eq!(layout.place(unit), Place { number, offset: 0, units });
                assert_eq!(layout.place(unit + units - 1), Place { number, offset: units - 1, units });
                assert_eq!((layout.start_of(number), layout.end_of(number)), (unit, unit + units));
                unit += units;
                assert_eq!(layout.count_to(unit), number + 1);
            }
        }
    }

    #[test]
    fn a_record_lies_in_no_more_segments_than_its_length_allows() {
        let layout = layout(8 << 10, 64 << 10);
        for units in [1, 100, 512, 513, 20_000] {
            for start in (0..20_000).step_by(7) {
                let touched = layout.place(start + units - 1).number - layout.place(start).number + 1;
                // One more, since it may begin in the middle of one.
                assert!(touched <= layout.most_for(units) + 1, "{units} units at {start}");
            }
        }
        assert_eq!((layout.full_before(2), layout.full_before(5)), (0, 3));
    }
}
