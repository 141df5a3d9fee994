//! The sweep: files of tables go when no version lists them and no reader holds them any more.
//!
//! Where there are threads, the one of the sweep takes them from the same channel, one by one.
use crate::db::Core;
use sapwood_base::format::file_name::FileName;
use std::time::Duration;

/// Ends the thread that removes files.
pub(super) const SWEEP_ENDS: FileName = FileName::Lock;
/// How often, and how long each time, a merge that was asked for waits for files to be removed.
const FILES_LOOKS: usize = 100;
const FILES_LOOK: Duration = Duration::from_millis(1);
/// Turns of the collector of replaced versions between two looks for work.
pub(super) const RELEASE_TURNS: usize = 4;

/// Removes the files of tables that have no reader any more. False if there was none, or background work is paused.
pub(super) fn sweep_step(core: &Core) -> bool {
    !core.background.is_paused() && remove_obsolete(core)
}

/// A step of that. A file that cannot be removed now is removed as an orphan at the next opening. REQUIRES: no pause.
pub(crate) fn remove_obsolete(core: &Core) -> bool {
    // Versions that were replaced are dropped, and let their tables go, once no read can be using them. Where a run
    // must repeat itself, none may be left for later, and the order in which they went must not matter.
    core.view.release_retired(if core.options.env.starts_threads() { RELEASE_TURNS } else { 4096 });
    let mut files: Vec<FileName> =
        core.obsolete_files.try_iter().filter(|file| *file != SWEEP_ENDS).collect();
    files.sort_unstable_by_key(|file| file.number());
    for file in &files {
        let _ = core.context.fs.remove_file(&core.context.path(*file));
    }
    !files.is_empty()
}

/// Waits a little until the files of tables that were replaced are gone that have no reader any more.
pub(crate) fn wait_for_files(core: &Core) {
    if !core.options.env.starts_threads() {
        sweep_step(core);
        return;
    }
    for _ in 0..FILES_LOOKS {
        core.view.release_retired(RELEASE_TURNS);
        if core.context.leaving() == 0 && core.obsolete_files.is_empty() {
            return;
        }
        core.options.env.sleep(FILES_LOOK);
    }
}
