//! Which outcomes of a run are allowed.
use super::injector::{Call, Effect, Plan};
use sapwood_base::format::log_record::{HEADER_BYTES, MARK_PAYLOAD_BYTES};
use sapwood_storage::sim::Operation as Kind;

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The failure was reported.
    Told,
    /// The failure was reported on request, and the handle accepts no more writes.
    Poisoned,
    /// The failure was not reported, and nothing is missing.
    Harmless,
    /// Synced data is missing without a report.
    Unnoticed,
    /// The call was another one than in the counting run.
    Elsewhere,
}

/// The planned failure of a run.
#[derive(Clone, Copy)]
pub(super) struct Planned<'c> {
    pub(super) plan: Plan,
    pub(super) call: &'c Call,
    /// See [`ends_a_close`].
    pub(super) ends_a_close: bool,
    /// See [`leads_to_removal`].
    pub(super) leads_to_removal: bool,
}

/// Whether synced data may be missing without a report after the device lied about this call.
///
/// The last bytes of the log have no later witness. Three calls are of this kind: a sync mark that
/// was itself stored wrong or lost; a header of a segment that was never stored (the segment then
/// looks unused); and a sync that did nothing, of the log or of the MANIFEST, if the power fails
/// before the next sync.
pub(super) fn may_go_unnoticed(call: &Call, effect: Effect) -> bool {
    match effect {
        Effect::LyingSync => true,
        effect if effect.is_damage() => call.file() == "log" || call.file() == "MANIFEST",
        _ => false,
    }
}

/// Whether the failure of a call may stay unreported:
///
/// * a sweep's removals are repeated at the next open;
/// * the mark after the last edit of a MANIFEST only adds certainty to an open;
/// * the last edit of a close records that the log need not be read, which only saves time:
///   everything is in tables by then, and if a failed write or sync leaves the edit incomplete, the
///   next open takes the old state or the new one and writes a MANIFEST of its own;
/// * a full disk that preallocation meets may have passed before the health is read.
pub(super) fn may_be_swallowed(planned: Planned<'_>) -> bool {
    let Planned { plan, call, ends_a_close, leads_to_removal } = planned;
    let is_mark = call.operation == Kind::Write && call.file() == "MANIFEST" && call.len == MARK_BYTES;
    let passes =
        matches!(plan.effect, Effect::Fails(cause) | Effect::HalfThenFails(cause) if cause.is_scarcity());
    let removes = call.operation == Kind::Remove || leads_to_removal;
    removes || is_mark || ends_a_close || (passes && !plan.sticky)
}

/// Whether call `at` inspects a file that is removed then: an orphan without a proven origin is
/// kept until the next open.
pub(super) fn leads_to_removal(calls: &[Call], at: usize) -> bool {
    let looks = |call: &Call| matches!(call.operation, Kind::Open | Kind::LookUp | Kind::Read);
    let next = calls[at..].iter().find(|call| !looks(call) || call.path != calls[at].path);
    looks(&calls[at])
        && next.is_some_and(|call| call.operation == Kind::Remove && call.path == calls[at].path)
}

/// Whether call `at` writes or syncs the last edit of a close: after it the MANIFEST gets a mark,
/// and no other edit before the close is over.
pub(super) fn ends_a_close(calls: &[Call], at: usize) -> bool {
    let concerns_edit = |call: &&Call| {
        call.file() == "MANIFEST"
            && (call.operation == Kind::Sync || (call.operation == Kind::Write && call.len != MARK_BYTES))
    };
    let later = calls[at + 1..].iter().take_while(|call| call.closing);
    let writes = later.filter(concerns_edit).filter(|call| call.operation == Kind::Write).count();
    calls[at].closing && concerns_edit(&&calls[at]) && writes == 0
}

/// The length of the mark after the last edit of a MANIFEST.
pub(super) const MARK_BYTES: usize = HEADER_BYTES + MARK_PAYLOAD_BYTES;
