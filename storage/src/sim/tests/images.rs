//! Tests of crash states, their choices, and the hash that distinguishes them.
use super::*;
use std::collections::BTreeMap;

/// All names and contents.
fn state(fs: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    fs.files().into_iter().map(|file| (file.clone(), fs.read_file(&file).unwrap())).collect()
}

/// Makes calls chosen by the seed, on few files.
fn work(fs: &SimFs, seed: u64, calls: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut files: Vec<Box<dyn File>> = Vec::new();
    for _ in 0..calls {
        let [a, b] = [(); 2].map(|()| path(&format!("f{}", random.u32(..4))));
        match random.u32(..12) {
            0..3 => files.extend(fs.create_new(&a).ok()),
            3 => drop(fs.rename(&a, &b)),
            4 => drop(fs.remove_file(&a)),
            5 => drop(fs.hard_link(&a, &b)),
            6 if random.u32(..4) == 0 => drop(fs.sync_directory(Path::new("/db"))),
            _ if files.is_empty() => {}
            7 if random.bool() => files[random.usize(..files.len())].sync_data().unwrap(),
            8 => files[random.usize(..files.len())].set_len(random.u64(..4000)).unwrap(),
            _ => {
                let bytes = vec![random.u8(1..); random.usize(..2000)];
                files[random.usize(..files.len())].write_at(random.u64(..4000), &bytes).unwrap();
            }
        }
    }
}

#[test]
fn few_atoms_give_every_subset_once() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fill_zeros(&*file, 0, 4096).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    file.write_at(0, &[7; 4096]).unwrap();
    let images: Vec<(CrashChoice, SimFs)> = fs.crash_images(1, usize::MAX).collect();
    assert_eq!(images.len(), 256);
    let states: BTreeSet<_> = images.iter().map(|(_, image)| state(image)).collect();
    assert_eq!(states.len(), 256);
    assert_eq!(images[0].0.to_string(), "none/8");
    assert_eq!(images[0].1.read_file(path("a")).unwrap(), [0; 4096]);
    assert_eq!(images[1].0.to_string(), "all/8");
    assert_eq!(images[1].1.read_file(path("a")).unwrap(), [7; 4096]);
}

#[test]
fn many_atoms_give_a_spread_that_begins_with_none_and_all() {
    let fs = sim();
    work(&fs, 3, 60);
    let count = fs.atoms().len();
    assert!(count > 20, "{count}");
    for (seed, limit) in [(0, 2), (1, 25), (2, usize::MAX)] {
        let images: Vec<(CrashChoice, SimFs)> = fs.crash_images(seed, limit).collect();
        assert!(images.len() <= limit);
        assert_eq!(state(&images[0].1), state(&fs.crash(0)));
        assert_eq!(state(&images[1].1), state(&fs.crash(1)));
        let hashes: BTreeSet<u64> = images.iter().map(|(_, image)| image.image_hash()).collect();
        assert_eq!(hashes.len(), images.len(), "no state twice");
        let states: BTreeSet<_> = images.iter().map(|(_, image)| state(image)).collect();
        assert_eq!(states.len(), images.len(), "different hashes, different states");
        if limit == 25 {
            assert_eq!(images.len(), limit);
            let kinds: BTreeSet<String> = images
                .iter()
                .map(|(choice, _)| {
                    choice.to_string().chars().take_while(|c| c.is_ascii_lowercase()).collect()
                })
                .collect();
            assert!(kinds.len() >= 7, "{kinds:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_images_and_a_choice_gives_its_image_again() {
    for seed in 0..30 {
        let [fs, twin] = [sim(), sim()];
        work(&fs, seed, 10 + seed as usize * 3);
        work(&twin, seed, 10 + seed as usize * 3);
        assert_eq!(fs.image_hash(), twin.image_hash());
        let images: Vec<_> = fs.crash_images(seed, 60).collect();
        let again: Vec<_> = twin.crash_images(seed, 60).collect();
        assert_eq!(images.len(), again.len());
        for ((choice, image), (same_choice, same_image)) in images.iter().zip(&again) {
            assert_eq!(choice, same_choice);
            assert_eq!(state(image), state(same_image));
            let parsed: CrashChoice = choice.to_string().parse().unwrap();
            assert_eq!(parsed, *choice);
            let repeated = twin.crash_by(&parsed);
            assert_eq!(state(&repeated), state(image), "seed {seed}, {choice}");
            assert_eq!(repeated.image_hash(), image.image_hash());
            // As a plain set of atoms, too.
            let kept = CrashChoice::of_kept(&choice.kept(&twin.atoms())).over(choice.underlay());
            assert_eq!(state(&twin.crash_by(&kept)), state(image), "seed {seed}, {choice}, {kept}");
        }
    }
}

#[test]
fn choices_are_text() {
    let texts = [
        "none",
        "all",
        "prefix17",
        "but5/40",
        "only5",
        "object3",
        "but-object3/9",
        "set0-3,7/12",
        "set/0",
        "some50:9+random77",
        "starts:18446744073709551615/3+removed0",
    ];
    for text in texts {
        assert_eq!(text.parse::<CrashChoice>().unwrap().to_string(), text);
    }
    for text in ["", "most", "prefix", "prefix-1", "set1-", "some5", "all/", "all+", "none+random", "some:1"]
    {
        assert!(text.parse::<CrashChoice>().is_err(), "{text:?}");
    }
    let kept = [true, true, false, true];
    assert_eq!(CrashChoice::of_kept(&kept).to_string(), "set0-1,3/4");
}

#[test]
#[should_panic(expected = "another number of atoms")]
fn a_choice_of_another_moment_is_refused() {
    sim().crash_by(&"all/7".parse().unwrap());
}

#[test]
fn the_hash_is_of_names_and_contents_only() {
    let [fs, other] = [sim(), sim()];
    let base = fs.image_hash();
    for fs in [&fs, &other] {
        fs.write_file(path("a"), &[1; 10_000]).unwrap();
    }
    let hash = fs.image_hash();
    assert_ne!(hash, base);
    // The same bytes by another path, with other files in between.
    let file = other.create_new(&path("b")).unwrap();
    file.write_at(0, b"z").unwrap();
    assert_ne!(other.image_hash(), hash);
    other.remove_file(&path("b")).unwrap();
    other.sync_directory(Path::new("/db")).unwrap();
    let handle = other.open(&path("a"), OpenMode::ReadWrite).unwrap();
    handle.write_at(5000, b"changed").unwrap();
    assert_ne!(other.image_hash(), hash, "what calls see counts");
    handle.write_at(5000, &[1; 7]).unwrap();
    assert_eq!(other.image_hash(), hash);
    // Written zeros equal unwritten ones.
    let [written, hole] = [sim(), sim()];
    written.write_file(path("a"), &[0; 500_000]).unwrap();
    let file = hole.create_new(&path("a")).unwrap();
    file.set_len(500_000).unwrap();
    file.sync_all().unwrap();
    hole.sync_directory(Path::new("/db")).unwrap();
    assert_eq!(written.image_hash(), hole.image_hash());
    // Swapped pages do not cancel out.
    let [one, two] = [sim(), sim()];
    one.write_file(path("a"), &[[1; 4096], [2; 4096]].concat()).unwrap();
    two.write_file(path("a"), &[[2; 4096], [1; 4096]].concat()).unwrap();
    assert_ne!(one.image_hash(), two.image_hash());
}

#[test]
fn damage_and_lengths_change_the_hash() {
    let fs = sim();
    fs.write_file(path("a"), &[1; 300_000]).unwrap();
    let hash = fs.image_hash();
    fs.corrupt(path("a"), 299_999, 0x10);
    assert_ne!(fs.image_hash(), hash);
    fs.corrupt(path("a"), 299_999, 0x10);
    assert_eq!(fs.image_hash(), hash);
    let file = fs.open(&path("a"), OpenMode::ReadWrite).unwrap();
    file.set_len(299_999).unwrap();
    assert_ne!(fs.image_hash(), hash);
    let image = fs.kill();
    drop(image.create_new(&path("empty")).unwrap());
    assert_ne!(fs.image_hash(), image.image_hash());
}

/// Growth without its bytes shows zeros, noise or former content, according to the choice.
#[test]
fn lost_bytes_lie_over_what_the_choice_says() {
    let fs = sim();
    fs.write_file(path("old"), &[0xAB; 9000]).unwrap();
    fs.remove_file(&path("old")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    let file = fs.create_new(&path("a")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    file.write_at(0, &[1; 700]).unwrap();
    file.sync_data().unwrap();
    file.write_at(700, &[2; 2000]).unwrap();
    let grown = fs.atoms().iter().position(|atom| matches!(atom.kind, AtomKind::Grow(2700))).unwrap();
    let crash = |underlay: &str| {
        let choice: CrashChoice = format!("only{grown}+{underlay}").parse().unwrap();
        fs.crash_by(&choice).read_file(path("a")).unwrap()
    };
    let zeros = crash("zeros");
    assert_eq!(zeros[..700], [1; 700]);
    assert_eq!(zeros[700..], [0; 2000]);
    for seed in 0..20 {
        let random = crash(&format!("random{seed}"));
        assert_eq!(random[..1024], zeros[..1024], "a sector that is there stays what it is");
        assert!(random[1024..].iter().collect::<BTreeSet<_>>().len() > 200);
        assert_eq!(random, crash(&format!("random{seed}")));
    }
    let removed: BTreeSet<Vec<u8>> = (0..20).map(|seed| crash(&format!("removed{seed}"))).collect();
    assert!(removed.contains(&[&zeros[..1024], &[0xAB; 2700 - 1024]].concat()), "{removed:?}");
    assert!(removed.iter().all(|bytes| bytes[1024..].iter().all(|byte| [0, 0xAB].contains(byte))));
    // All three occur among crashes by seed.
    let kinds: BTreeSet<String> = (0..400)
        .filter_map(|seed| fs.crash(seed).read_file(path("a")).ok())
        .filter(|bytes| bytes.len() == 2700 && bytes[1100] != 2)
        .map(|bytes| match bytes[1100..1500].iter().collect::<BTreeSet<_>>().len() {
            1 => format!("{}", bytes[1100]),
            _ => "random".to_owned(),
        })
        .collect();
    assert_eq!(kinds, BTreeSet::from(["0", "171", "random"].map(str::to_owned)));
}

/// A hole has no sectors of its own, so no former content can appear.
#[test]
fn a_hole_reads_as_zeros_after_every_crash() {
    let fs = sim();
    let file = fs.create_new(&path("a")).unwrap();
    fs.sync_directory(Path::new("/db")).unwrap();
    file.write_at(0, &[7; 2048]).unwrap();
    file.set_len(0).unwrap();
    file.set_len(4096).unwrap();
    for (choice, image) in fs.crash_images(5, usize::MAX) {
        let bytes = image.read_file(path("a")).unwrap();
        assert!(bytes.iter().all(|byte| [0, 7].contains(byte)), "{choice}");
    }
}

/// A copy and a crash own no bytes, and a store after them only its page.
#[test]
fn copies_share_their_bytes() {
    let fs = sim();
    fs.write_file(path("a"), &vec![3; 4 << 20]).unwrap();
    let own = |fs: &SimFs| {
        let world = fs.world.lock();
        world.own_pages(world.look_up(&path("a")).unwrap())
    };
    let handle = fs.open(&path("a"), OpenMode::ReadWrite).unwrap();
    for round in 0..20u64 {
        handle.write_at(round * 50_000, &round.to_le_bytes()).unwrap();
        assert_eq!(own(&fs), 1);
        let killed = fs.kill();
        assert_eq!(own(&killed), 0);
        assert_eq!(own(&killed.crash(0)), 0);
        handle.sync_data().unwrap();
        assert_eq!(own(&fs), 0);
        assert_eq!(own(&fs.crash(1)), 0);
    }
}
