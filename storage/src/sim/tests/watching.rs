//! Tests of the watcher and of its copies.
use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// All moments as text, and the watcher's result for each.
fn record<T: Send + 'static>(
    fs: &SimFs,
    mut look: impl FnMut(&Moment<'_>) -> T + Send + 'static,
) -> Arc<Mutex<Vec<(String, T)>>> {
    let moments = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&moments);
    fs.watch(move |moment| into.lock().push((format!("{moment:?}"), look(moment))));
    moments
}

#[test]
fn a_watcher_sees_every_changing_call_from_both_sides() {
    let fs = sim();
    let first = fs.operations();
    let moments = record(&fs, |moment| (moment.number, moment.other.map(Path::to_path_buf), moment.failed));
    let file = fs.create_new(&path("a")).unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.len().unwrap(), 1);
    fs.rename(&path("a"), &path("b")).unwrap();
    assert!(fs.remove_file(&path("a")).is_err());
    fs.unwatch();
    fs.remove_file(&path("b")).unwrap();
    let moments = moments.lock();
    let expected = ["create /db/a", "write /db/a", "sync /db/a", "rename /db/a", "remove /db/a"];
    assert_eq!(moments.len(), 2 * expected.len());
    for (index, (text, (number, other, failed))) in moments.iter().enumerate() {
        let place = index / 2;
        assert_eq!(*number, first + place as u64);
        let side = if index % 2 == 1 { "after" } else { "before" };
        assert_eq!(*text, format!("{side} operation {number}: {}", expected[place]));
        assert_eq!(other.is_some(), place == 3);
        assert_eq!(*failed, index == 9, "{text}");
    }
}

#[test]
fn an_image_is_the_moment_and_stays_it() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    let moments = record(&fs, |moment| moment.image());
    file.write_at(0, &[1; 600]).unwrap();
    file.sync_data().unwrap();
    file.write_at(0, &[2; 600]).unwrap();
    fs.remove_file(&path("a")).unwrap();
    let moments = moments.lock();
    let content = |index: usize| moments[index].1.read_file(path("a")).map(|bytes| bytes.first().copied());
    assert_eq!(content(0).unwrap(), None);
    assert_eq!(content(1).unwrap(), Some(1));
    assert_eq!(content(4).unwrap(), Some(1));
    assert_eq!(content(5).unwrap(), Some(2));
    assert_eq!(content(6).unwrap(), Some(2), "a removal is told before it happens");
    assert!(content(7).is_err());
    // The pending changes belong to it.
    let after_write = &moments[1].1;
    assert_eq!(after_write.atoms().len(), 3);
    assert_eq!(after_write.crash(0).read_file(path("a")).unwrap(), b"");
    assert_eq!(moments[3].1.crash(0).read_file(path("a")).unwrap(), [1; 600]);
    // It is an ordinary file system, and changing it affects neither the original nor another
    // image.
    let changed = after_write.open(&path("a"), OpenMode::ReadWrite).unwrap();
    changed.write_at(0, &[9; 600]).unwrap();
    assert_eq!(content(2).unwrap(), Some(1));
    assert_eq!(file.len().unwrap(), 600);
}

#[test]
fn a_watcher_may_work_in_the_image() {
    let fs = sim();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    fs.watch(move |moment| {
        let image = moment.image();
        let file = image.create_new(&path("other")).unwrap();
        file.write_at(0, b"anything").unwrap();
        for (_, crashed) in image.crash_images(0, 10) {
            crashed.list(Path::new("/db")).unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    drop(fs.create_new(&path("a")).unwrap());
    assert!(count.load(Ordering::Relaxed) > 4);
    assert_eq!(fs.files(), [path("a")]);
}

#[test]
fn a_stopped_world_is_not_watched() {
    let fs = sim();
    let moments = record(&fs, |_| ());
    fs.crash_at(fs.operations());
    assert!(fs.create_new(&path("a")).is_err());
    assert!(moments.lock().is_empty());
}
