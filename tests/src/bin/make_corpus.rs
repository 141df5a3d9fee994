//! Writes the seeds of all fuzz targets into `fuzz/corpus/` and leaves the other files there alone.
//!
//! `cargo run -p sapwood-tests --bin make_corpus`
#![allow(clippy::disallowed_methods, reason = "writes the corpora, which are real files")]
use sapwood_tests::targets::seeds;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let (mut files, mut bytes) = (0, 0);
    for (i, (target, seed)) in seeds::all().into_iter().enumerate() {
        let folder = root.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("seed-{i:03}")), &seed)?;
        files += 1;
        bytes += seed.len();
    }
    println!("{files} seeds, {bytes} bytes");
    Ok(())
}
