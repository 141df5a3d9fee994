//! The sweep: removes files of tables once no version lists them and no reader holds them.
//!
//! With threads, the sweep thread receives the files from the same channel, one by one.
use crate::runtime::Core;
use sapwood_base::format::file_name::FileName;
use std::time::Duration;

/// Ends the thread that removes files.
pub(super) const SWEEP_ENDS: FileName = FileName::Lock;
/// Limit of checks of a manual merge for removed files, and the interval between them.
const FILES_LOOKS: usize = 100;
const FILES_LOOK: Duration = Duration::from_millis(1);
/// Turns of the collector of replaced versions between two looks for work.
pub(super) const RELEASE_TURNS: usize = 4;

/// Removes the files of tables without readers. False if there was none, or background work is
/// paused.
pub(super) fn sweep_step(core: &Core) -> bool {
    !core.background.is_paused() && remove_obsolete(core)
}

/// A step of the sweep. A file that cannot be removed now is removed as an orphan at the next
/// open. REQUIRES: no pause.
pub(crate) fn remove_obsolete(core: &Core) -> bool {
    // Replaced versions are dropped, and release their tables, once no read can be using them. If a
    // run must be reproducible, none may be left for later, and the order of removal must not
    // matter.
    core.view.release_retired(if core.options.env.starts_threads() { RELEASE_TURNS } else { 4096 });
    let mut files: Vec<FileName> =
        core.obsolete_files.try_iter().filter(|file| *file != SWEEP_ENDS).collect();
    files.sort_unstable_by_key(|file| file.number());
    for file in &files {
        let _ = core.files.fs.remove_file(&core.files.path(*file));
    }
    !files.is_empty()
}

/// Waits a little until the files of replaced tables without readers are removed.
pub(crate) fn wait_for_files(core: &Core) {
    if !core.options.env.starts_threads() {
        sweep_step(core);
        return;
    }
    for _ in 0..FILES_LOOKS {
        core.view.release_retired(RELEASE_TURNS);
        if core.files.leaving() == 0 && core.obsolete_files.is_empty() {
            return;
        }
        core.options.env.sleep(FILES_LOOK);
    }
}
