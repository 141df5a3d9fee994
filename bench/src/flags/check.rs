//! Values that no benchmark can run with.
use super::Flags;

impl Flags {
    /// Refuses values that no benchmark can run with.
    pub(super) fn check(&self) -> Result<(), String> {
        let range = |name: &str, value: i64, least: i64, most: i64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("--{name}={value} is out of range: it is {least} to {most}"))
            }
        };
        let choice = |name: &str, value: &str, choices: &[&str]| {
            if choices.contains(&value) {
                Ok(())
            } else {
                Err(format!("--{name}={value} is none of {}", choices.join(", ")))
            }
        };
        range("num", self.num, 1, 1 << 48)?;
        range("threads", self.threads, 1, 4096)?;
        range("key_size", self.key_size, 4, 65_535)?;
        range("value_size", self.value_size, 0, 1 << 28)?;
        range("value_size_min", self.value_size_min, 0, 1 << 28)?;
        range("value_size_max", self.value_size_max, self.value_size_min, 1 << 28)?;
        range("batch_size", self.batch_size, 1, 1 << 20)?;
        range("prefix_size", self.prefix_size, 0, self.key_size)?;
        range("keys_per_prefix", self.keys_per_prefix, 0, i64::MAX)?;
        range("readwritepercent", self.readwritepercent, 0, 100)?;
        range("write_buffer_size", self.write_buffer_size, 1, i64::MAX)?;
        range("max_write_buffer_number", self.max_write_buffer_number, 1, 1024)?;
        range("ops_between_duration_checks", self.ops_between_duration_checks, 1, i64::MAX)?;
        // Only randomwithverify uses both, and readwritepercent=100 alone is common.
        let writes = 100 - self.readwritepercent;
        if self.given.contains(&"deletepercent") {
            range("deletepercent", self.deletepercent, 0, writes)?;
        }
        range("numdistinct", self.numdistinct, 1, 1 << 40)?;
        range("multiscan_size", self.multiscan_size, 1, 1 << 20)?;
        range("multiscan_stride", self.multiscan_stride, 0, 1 << 40)?;
        range("key_id_range", self.key_id_range, 1, 1 << 48)?;
        range("time_range", self.time_range, 1, i64::MAX)?;
        range("num_deletion_threads", self.num_deletion_threads, 0, 4096)?;
        range("queue_depth", self.queue_depth, -1, 1 << 40)?;
        range("deleted_neighbours", self.deleted_neighbours, 0, 1 << 40)?;
        range("large_commit_size", self.large_commit_size, 1, 1 << 30)?;
        range("large_commit_pause", self.large_commit_pause, 0, 1 << 30)?;
        range("open_rounds", self.open_rounds, 0, 1 << 40)?;
        range("open_databases", self.open_databases, 0, 100_000)?;
        range("ttl_writes", self.ttl_writes, 0, 1 << 40)?;
        range("keyrange_num", self.keyrange_num, 1, 1 << 24)?;
        range("num_column_families", self.num_column_families, 1, 10_000)?;
        if [self.mix_get_ratio, self.mix_put_ratio, self.mix_seek_ratio].iter().all(|ratio| *ratio <= 0.0) {
            return Err("--mix_get_ratio, --mix_put_ratio and --mix_seek_ratio are all 0".to_owned());
        }
        if self.open_loop_rate < 0.0 {
            return Err(format!("--open_loop_rate={} is negative", self.open_loop_rate));
        }
        choice("open_loop_spacing", &self.open_loop_spacing, &["poisson", "fixed"])?;
        if ["zlib", "bzip2", "xpress"].contains(&self.compression_type.as_str()) {
            return Err(format!(
                "--compression_type={} is refused: Sapwood has no such codec, and another one's figures would be \
                 those of another one; zstd is the nearest",
                self.compression_type
            ));
        }
        choice(
            "compression_type",
            &self.compression_type,
            &["default", "none", "lz4", "zstd", "snappy", "lz4hc"],
        )?;
        if self.compaction_style == "2" {
            return Err(
                "--compaction_style=2 is refused: Sapwood has no style that drops the oldest data (FIFO)"
                    .to_owned(),
            );
        }
        choice("compaction_style", &self.compaction_style, &["hybrid", "1", "leveled", "0", "none", "3"])?;
        if self.expire_style == "compaction_filter" {
            return Err(
                "--expire_style=compaction_filter is refused: Sapwood has no compaction filters; delete has \
                        threads that delete what has expired"
                    .to_owned(),
            );
        }
        choice("expire_style", &self.expire_style, &["none", "delete"])?;
        range("same_value_percentage", self.same_value_percentage, 0, 100)?;
        range("overwrite_window_size", self.overwrite_window_size, 1, i64::from(u32::MAX))?;
        if !(0.0..=1.0).contains(&self.overwrite_probability) {
            return Err(format!(
                "--overwrite_probability={} is out of range: it is 0 to 1",
                self.overwrite_probability
            ));
        }
        for (name, size) in [
            ("disposable_entries_value_size", self.disposable_entries_value_size),
            ("persistent_entries_value_size", self.persistent_entries_value_size),
        ] {
            range(name, size, 0, 1 << 28)?;
        }
        for (name, count) in [
            ("disposable_entries_batch_size", self.disposable_entries_batch_size),
            ("persistent_entries_batch_size", self.persistent_entries_batch_size),
            ("disposable_entries_delete_delay", self.disposable_entries_delete_delay),
            ("max_scan_distance", self.max_scan_distance),
            ("seek_nexts_to_delete", self.seek_nexts_to_delete),
        ] {
            range(name, count, 0, 1 << 48)?;
        }
        self.check_together()?;
        choice(
            "value_size_distribution_type",
            &self.value_size_distribution_type,
            &["fixed", "uniform", "normal"],
        )?;
        if !(0.0..=1.0).contains(&self.compression_ratio) {
            return Err(format!(
                "--compression_ratio={} is out of range: it is 0 to 1",
                self.compression_ratio
            ));
        }
        Ok(())
    }
}

impl Flags {
    /// Refuses flags that contradict each other.
    fn check_together(&self) -> Result<(), String> {
        if self.disable_wal && self.sync {
            return Err("--sync needs the log, and --disable_wal leaves it out".to_owned());
        }
        if self.use_existing_keys && !(self.use_existing_db || self.readonly) {
            return Err("--use_existing_keys needs --use_existing_db".to_owned());
        }
        Ok(())
    }
}
