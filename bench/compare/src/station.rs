//! Stations: databases that are created, measured and removed, and the processes that do so.
//!
//! A station is one database per engine and round. Its processes run one after the other. The
//! workloads of one process share an open engine, so that reads find a warm cache.
use crate::settings::Settings;

/// A database and its workloads.
pub struct Station {
    /// The name on the command line and in files.
    pub id: &'static str,
    /// Its title in the report.
    pub title: &'static str,
    /// The workloads of each process. A process that only verifies runs in the first round alone.
    pub processes: &'static [&'static [&'static str]],
    /// Changes the settings that all stations share.
    pub adjust: fn(&mut Settings),
    /// Whether it belongs to the standard comparison. `--full` adds the others, except the
    /// sustained load.
    pub standard: bool,
}

fn unchanged(_: &mut Settings) {}

/// All stations, in the order of the report.
#[rustfmt::skip]
pub const ALL: &[Station] = &[
    Station {
        id: "random", title: "random keys", standard: true, adjust: unchanged,
        processes: &[
            &["fillrandom"],
            &["open", "verify", "warm", "readrandom", "readrandom2", "readhot", "readmissing", "seekrandom", "scan", "scanback"],
            &["overwrite", "readwhilewriting", "readwhilewriting80k"],
            &["verify"],
        ],
    },
    Station { id: "sequential", title: "keys in order", standard: true, adjust: unchanged, processes: &[&["fillseq"], &["verify"]] },
    Station { id: "batches", title: "batches", standard: true, adjust: unchanged, processes: &[&["fillbatch"], &["verify"]] },
    Station { id: "durable", title: "durable writes", standard: true, adjust: unchanged, processes: &[&["fillsync"], &["verify"]] },
    Station { id: "durable8", title: "durable writes of 8 threads", standard: true, adjust: unchanged, processes: &[&["fillsync8"], &["verify"]] },
    Station {
        id: "indexed", title: "2 M rows with a secondary index", standard: true,
        adjust: |settings| { settings.rows = settings.rows * 2 / 3; settings.indexed = true; },
        processes: &[
            &["fillindexed"],
            &["verify", "warm", "indexscan", "indexlookup", "readpresent", "readrandom"],
            &["updateindexed"],
            &["verify"],
        ],
    },
    Station {
        id: "killed", title: "64 MiB of log, then kill -9", standard: true,
        // Memtables are large, so that the log holds all data when the process dies.
        adjust: |settings| { settings.rows = settings.rows.min(100_000); settings.memtable_bytes = 128 << 20; },
        processes: &[&["kill"], &["openkilled"]],
    },
    Station {
        id: "ycsb", title: "YCSB", standard: false, adjust: unchanged,
        processes: &[&["ycsbload", "ycsba", "ycsbb", "ycsbc", "ycsbf", "ycsbd", "ycsbe"]],
    },
    Station {
        id: "kilobyte", title: "500 k x 1 KiB", standard: false,
        adjust: |settings| { settings.rows /= 6; settings.value_bytes = 1024; settings.cache_bytes *= 2; },
        processes: &[&["fillrandom"], &["open", "verify", "warm", "readrandom"], &["overwrite"], &["verify"]],
    },
    Station {
        id: "large", title: "20 M rows", standard: false,
        adjust: |settings| { settings.rows = settings.rows * 20 / 3; settings.fill_seconds *= 10.0; settings.seconds *= 5.0; },
        processes: &[&["fillrandom"], &["open", "verify", "warm", "readrandom", "seekrandom"], &["overwrite"], &["verify"]],
    },
    Station {
        id: "largekilled", title: "20 M rows, then kill -9", standard: false,
        adjust: |settings| { settings.rows = settings.rows * 20 / 3; settings.memtable_bytes = 128 << 20; },
        processes: &[&["kill"], &["openkilled"]],
    },
    Station { id: "sustained", title: "sustained overwrite", standard: false, adjust: unchanged, processes: &[&["load", "sustained"], &["verify"]] },
];

/// Finds a station; the error lists the known ones.
pub fn find(id: &str) -> Result<&'static Station, String> {
    ALL.iter().find(|station| station.id == id).ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().map(|station| station.id).collect();
        format!("there is no station '{id}'; there are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    #[test]
    fn stations_consist_of_known_workloads_and_every_workload_belongs_to_one() {
        let used: Vec<&str> = ALL.iter().flat_map(|station| station.processes.concat()).collect();
        assert!(used.iter().all(|id| workload::find(id).is_some()));
        assert!(workload::ALL.iter().all(|workload| used.contains(&workload.id)));
        assert!(
            find("randum").is_err_and(|message| message.contains("'randum'") && message.contains("killed"))
        );
    }
}
