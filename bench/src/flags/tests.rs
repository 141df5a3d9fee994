//! Spellings, wrong values, and the flags of RocksDB.
use super::parser::{Kind, Parser};
use super::{Command, Flags, ignored, refused};

fn parse(arguments: &[&str]) -> Result<Flags, String> {
    match Flags::parse(arguments.iter().map(|&argument| argument.to_owned()))? {
        Command::Run(flags) => Ok(*flags),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn every_spelling_of_gflags_is_understood() {
    let flags = parse(&["--num=5", "-reads=7", "--writes", "9", "--histogram", "--nocpu_report"]).unwrap();
    assert_eq!((flags.num, flags.reads, flags.writes), (5, 7, 9));
    assert!(flags.histogram && !flags.cpu_report);
    let flags =
        parse(&["--histogram=false", "--sync=1", "-use-existing-db", "--seed=0x10", "--deletes=-1"]).unwrap();
    assert!(!flags.histogram && flags.sync && flags.use_existing_db);
    assert_eq!((flags.seed, flags.deletes), (16, -1));
    assert_eq!(parse(&["--num=1", "--num=2"]).unwrap().num, 2);
    assert_eq!(parse(&["--benchmarks=a,b=c"]).unwrap().benchmarks, "a,b=c");
    assert_eq!(parse(&["--bloom_bits=10"]).unwrap().bloom_bits, 10.0);
}

#[test]
fn counts_fall_back_to_num() {
    let flags = parse(&["--num=50", "--writes=3"]).unwrap();
    assert_eq!((flags.read_count(), flags.write_count(), flags.delete_count()), (50, 3, 50));
}

#[test]
fn an_unknown_flag_is_an_error_that_names_near_ones() {
    let error = parse(&["--value_sise=3"]).unwrap_err();
    assert!(
        error.starts_with("unknown command line flag 'value_sise'; did you mean --value_size"),
        "{error}"
    );
    assert!(parse(&["--no_such_thing"]).unwrap_err().contains("unknown command line flag 'no_such_thing'"));
    assert!(parse(&["--nonum"]).is_err());
    assert!(parse(&["fillseq"]).unwrap_err().contains("is not a flag"));
}

#[test]
fn undefok_lets_unknown_flags_pass_wherever_it_stands() {
    let flags = parse(&["--mystery=1", "--num=3", "--nosuch", "--undefok=mystery,such"]).unwrap();
    assert_eq!(flags.num, 3);
    assert!(parse(&["--undefok=mystery", "--other"]).is_err());
}

#[test]
fn flags_of_rocksdb_without_a_meaning_are_collected() {
    let flags = parse(&[
        "--cache_index_and_filter_blocks",
        "--max_bytes_for_level_base=1",
        "--nouse_direct_reads",
        "--open_files",
        "-1",
        "--open_files=3",
        "--num=2",
    ])
    .unwrap();
    assert_eq!(
        flags.ignored,
        ["cache_index_and_filter_blocks", "max_bytes_for_level_base", "open_files", "use_direct_reads"]
    );
    assert_eq!(flags.num, 2);
}

#[test]
fn flags_that_change_what_is_measured_pass_only_when_they_are_off() {
    for off in [
        "--transaction_db=0",
        "--notransaction_db",
        "--options_file=",
        "--num_multi_db=1",
        "--user_timestamp_size=0",
        "--compression_manager=None",
    ] {
        assert!(parse(&[off, "--num=7"]).unwrap().ignored.is_empty(), "{off}");
    }
    for (on, reason) in [
        ("--transaction_db", "--transaction_db=true is refused: Sapwood has no transactions"),
        ("--options_file=a.ini", "--options_file=a.ini is refused: options files of RocksDB are not read"),
        ("--num_multi_db=4", "openclose"),
        ("--env_uri=posix://", "--db chooses the file system"),
        ("--expire_style=compaction_filter", "Sapwood has no compaction filters"),
        ("--compression_type=zlib", "zstd is the nearest"),
        ("--compression_type=BZip2", "zstd is the nearest"),
        ("--compaction_style=2", "drops the oldest data"),
        ("--compaction_style=4", "none of hybrid, 1, leveled"),
    ] {
        let error = parse(&[on]).unwrap_err();
        assert!(error.contains(reason), "{on}: {error}");
    }
    let error = parse(&["--trace_file"]).unwrap_err();
    assert_eq!(error, "flag '--trace_file' is missing its argument");
    // The separate value of the flag is consumed, so that the next flag is parsed as one.
    assert_eq!(parse(&["--num_multi_db", "0", "--num", "3"]).unwrap().num, 3);
}

#[test]
fn every_flag_of_rocksdb_is_known() {
    let names = include_str!("../../tests/rocksdb_flags.txt").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for name in names {
        count += 1;
        let parser =
            Parser { flags: Flags::default(), undefok: Vec::new(), unknown: Vec::new(), command: None };
        let known = !matches!(parser.kind(name), Kind::Unknown) || name == "build_info";
        assert!(known, "--{name} is unknown");
        if let Kind::Refused(refused) = parser.kind(name) {
            let error = parse(&[&format!("--{name}=7")]).unwrap_err();
            assert!(refused.check("").is_ok() || refused.boolean, "{name}");
            assert!(error.starts_with(&format!("--{name}=7 is refused: ")) || refused.boolean, "{error}");
            let error = parse(&[&format!("--{name}=1")]);
            assert!(error.is_err() || name == "num_multi_db", "{name}");
        }
    }
    assert!(count > 400, "{count}");
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    assert!(parse(&["--disable_wal=1", "--sync=1"]).unwrap_err().contains("--sync needs the log"));
    assert!(parse(&["--disable_wal=1", "--sync=0"]).is_ok());
    assert!(parse(&["--use_existing_keys"]).unwrap_err().contains("needs --use_existing_db"));
    assert!(parse(&["--use_existing_keys", "--use_existing_db"]).is_ok());
    assert!(parse(&["--prefix_size=17"]).is_err() && parse(&["--compression_ratio=1.5"]).is_err());
}

#[test]
fn names_of_codecs_are_of_any_case_and_some_have_another_in_their_place() {
    let codec = |text: &str| {
        let flags = parse(&[&format!("--compression_type={text}")]).unwrap();
        (flags.compression_type.clone(), flags.codec_in_place())
    };
    assert_eq!(codec("ZSTD"), ("zstd".to_owned(), None));
    assert_eq!(codec("snappy"), ("snappy".to_owned(), Some("lz4")));
    assert_eq!(codec("lz4hc").1, Some("lz4"));
}

#[test]
fn the_build_is_told_only_when_asked_for() {
    let command = |text: &str| Flags::parse([text.to_owned()]);
    assert!(matches!(command("--build_info"), Ok(Command::BuildInfo)));
    assert!(matches!(command("--build_info=0"), Ok(Command::Run(_))));
    assert!(matches!(command("--nobuild_info"), Ok(Command::Run(_))));
    assert!(command("--build_info=x").is_err());
}

#[test]
fn wrong_values_are_refused_with_the_type() {
    assert_eq!(parse(&["--num=x"]).unwrap_err(), "illegal value 'x' specified for int64 flag 'num'");
    assert_eq!(parse(&["--sync=maybe"]).unwrap_err(), "illegal value 'maybe' specified for bool flag 'sync'");
    assert_eq!(parse(&["--num"]).unwrap_err(), "flag '--num' is missing its argument");
    assert!(parse(&["--threads=0"]).unwrap_err().contains("out of range"));
    assert!(parse(&["--key_size=3"]).is_err());
}

#[test]
fn given_flags_are_told_from_defaults() {
    let flags = parse(&["--num=5", "--value_size=100"]).unwrap();
    assert_eq!(flags.given, ["num", "value_size"]);
    assert!(parse(&["--open_loop_spacing=fix"]).unwrap_err().contains("none of poisson, fixed"));
    assert!(parse(&["--mix_get_ratio=0"]).unwrap_err().contains("all 0"));
    assert!(parse(&["--readwritepercent=99", "--deletepercent=2"]).is_err());
    assert!(parse(&["--readwritepercent=100"]).is_ok());
}

#[test]
fn a_flag_file_is_read_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flags");
    std::fs::write(&path, "# a comment\n--num=12\n\n  --sync\n").unwrap();
    let flags = parse(&[&format!("--flagfile={}", path.display()), "--threads=2"]).unwrap();
    assert!(flags.sync && flags.num == 12 && flags.threads == 2);
    std::fs::write(&path, format!("--flagfile={}\n", path.display())).unwrap();
    assert!(parse(&[&format!("--flagfile={}", path.display())]).unwrap_err().contains("nested too deeply"));
    assert!(parse(&["--flagfile=/does/not/exist"]).unwrap_err().contains("cannot read flag file"));
}

#[test]
fn help_lists_every_flag_in_its_group() {
    assert!(matches!(Flags::parse(["--help".to_owned()]), Ok(Command::Help)));
    let help = Flags::help();
    for definition in Flags::default().definitions() {
        assert!(help.contains(&format!("  --{}=", definition.name)), "{}", definition.name);
    }
    assert!(help.contains("\nThe engine:\n"));
    assert!(help.lines().all(|line| line.len() <= 120), "{help}");
}

#[test]
fn no_flag_is_both_known_and_ignored() {
    let mut all: Vec<&str> = ignored::BOOLEANS.iter().chain(ignored::VALUES).copied().collect();
    all.extend(refused::ALL.iter().map(|refused| refused.name));
    for definition in Flags::default().definitions() {
        assert!(!all.contains(&definition.name), "--{} has a meaning and is ignored", definition.name);
    }
    let mut unique = all.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), all.len(), "a name stands twice in the lists of ignored flags");
}
