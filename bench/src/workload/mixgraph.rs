//! mixgraph: gets, puts and scans with the distributions measured at Facebook; see
//! `sapwood_bench::mixgraph`.
use super::Worker;
use super::mixed::Sine;
use crate::flags::Flags;
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_bench::mixgraph::{Parameters, Pareto, Request, Requests};

fn parameters(flags: &Flags) -> Parameters {
    Parameters {
        num: flags.num as u64,
        keyrange_dist_a: flags.keyrange_dist_a,
        keyrange_dist_b: flags.keyrange_dist_b,
        keyrange_dist_c: flags.keyrange_dist_c,
        keyrange_dist_d: flags.keyrange_dist_d,
        keyrange_num: flags.keyrange_num as u64,
        key_dist_a: flags.key_dist_a,
        key_dist_b: flags.key_dist_b,
        value: Pareto { theta: flags.value_theta, k: flags.value_k, sigma: flags.value_sigma },
        iter: Pareto { theta: flags.iter_theta, k: flags.iter_k, sigma: flags.iter_sigma },
        mix_get_ratio: flags.mix_get_ratio,
        mix_put_ratio: flags.mix_put_ratio,
        mix_seek_ratio: flags.mix_seek_ratio,
        mix_max_scan_len: u64::try_from(flags.mix_max_scan_len).unwrap_or(0),
        mix_max_value_size: u64::try_from(flags.mix_max_value_size).unwrap_or(0),
    }
}

/// mixgraph.
pub fn run(worker: &mut Worker<'_>) -> Result<()> {
    let operations = u64::try_from(worker.flags.mix_accesses).unwrap_or(worker.parameters.reads);
    let mut limit = worker.limit(operations);
    let mut requests = Requests::new(&parameters(worker.flags));
    let mut sine = worker.flags.sine_mix_rate.then(|| Sine::of_mix(worker.flags));
    let mode = worker.parameters.mode;
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let [mut gets, mut puts, mut seeks, mut found, mut value_bytes, mut steps] = [0u64; 6];
    while limit.allows(1, stats) {
        if let (Some(sine), Some(limiter)) = (&mut sine, &shared.mix_rate) {
            sine.adjust(limiter, 1.0, random);
            limiter.request(1);
        }
        match requests.next(random) {
            Request::Get(number) => {
                gets += 1;
                let key = keys.make(number);
                if let Some(size) = engine.get(key, |value| std::hint::black_box(value).len())? {
                    found += 1;
                    stats.add_bytes((key.len() + size) as u64);
                }
                stats.finish_operations(1, Operation::Read);
            }
            Request::Put(number, size) => {
                puts += 1;
                value_bytes += size as u64;
                let (key, value) = (keys.make(number), values.take(size));
                stats.add_written((key.len() + value.len()) as u64);
                engine.put(key, value, mode)?;
                stats.add_bytes((key.len() + value.len()) as u64);
                stats.finish_operations(1, Operation::Write);
            }
            Request::Seek(number, length) => {
                seeks += 1;
                let key = keys.make(number);
                let mut cursor = engine.cursor()?;
                cursor.seek(key)?;
                found += u64::from(cursor.valid() && cursor.key() == key);
                for _ in 0..length {
                    if !cursor.valid() {
                        break;
                    }
                    steps += 1;
                    stats.add_bytes((cursor.key().len() + std::hint::black_box(cursor.value()).len()) as u64);
                    cursor.next()?;
                }
                stats.finish_operations(1, Operation::Seek);
            }
        }
    }
    stats.set_tally(&[gets, puts, seeks, found, value_bytes, steps], |n| {
        let [gets, puts, seeks, found, value_bytes, steps] = *n else { return String::new() };
        let mean = |sum: u64, count: u64| sum as f64 / count.max(1) as f64;
        format!(
            "( Gets:{gets} Puts:{puts} Seek:{seeks}, reads {found} in {} found, avg size: {:.1} value, {:.1} scan)",
            gets + seeks,
            mean(value_bytes, puts),
            mean(steps, seeks),
        )
    });
    Ok(())
}
