#!/usr/bin/env bash
# Runs Sapwood's db_bench and RocksDB's with the same flags, in the order A-B-B-A, so that a slow minute
# of the machine affects both. Prints ops/s of every benchmark and round, then medians and their ratio.
#
# usage: bench/beside_rocksdb.sh [path of RocksDB's db_bench]      (Debian: package rocksdb-tools)
# environment: NUM (3000000), READS (1000000), ROUNDS (1: each is A-B-B-A), DIRECTORY (a temporary one)
#
# 16-byte keys, 100-byte values, no compression, 512 MiB of block cache, 64 MiB memtables, Bloom filters
# of 10 bits, log on and not synced, one client thread, two background jobs. The first readrandom after
# each change warms the cache and is not reported.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rocksdb=${1:-/usr/bin/db_bench}
num=${NUM:-3000000}
reads=${READS:-1000000}
rounds=${ROUNDS:-1}
[[ -x $rocksdb ]] || { echo "error: no db_bench of RocksDB at $rocksdb (Debian: apt-get install rocksdb-tools)" >&2; exit 2; }
cargo build --quiet --release -p sapwood-bench --bin db_bench
sapwood=${CARGO_TARGET_DIR:-$PWD/target}/release/db_bench
folder=$(mktemp -d -p "${DIRECTORY:-${TMPDIR:-/tmp}}")
trap 'rm -rf "$folder"' EXIT

flags=(--num="$num" --reads="$reads" --key_size=16 --value_size=100 --compression_type=none --cache_size=536870912
    --write_buffer_size=67108864 --bloom_bits=10 --threads=1 --max_background_jobs=2 --seek_nexts=10)
seconds() { awk "BEGIN { print $1 + $2 }"; }

# Prints lines "engine round benchmark ops/s", and CPU µs per operation of the fill including its
# background work.
one() {
    local engine=$1 program=$2 round=$3 db=$folder/$1 line cpu
    local TIMEFORMAT='%U %S'
    rm -rf "$db"
    cpu=$({ time "$program" "${flags[@]}" --db="$db" --benchmarks=fillseq,waitforcompaction \
        >"$folder/out" 2>/dev/null; } 2>&1)
    sed -nE "s/^(fillseq) .* ([0-9]+) ops\/sec.*/$engine $round \1 \2/p" "$folder/out"
    echo "$engine $round fillseq-cpu $(awk "BEGIN { print ($(seconds $cpu)) * 1e6 / $num }")"
    rm -rf "$db"
    cpu=$({ time "$program" "${flags[@]}" --db="$db" --benchmarks=fillrandom,waitforcompaction \
        >"$folder/out" 2>/dev/null; } 2>&1)
    sed -nE "s/^(fillrandom) .* ([0-9]+) ops\/sec.*/$engine $round \1 \2/p" "$folder/out"
    echo "$engine $round fillrandom-cpu $(awk "BEGIN { print ($(seconds $cpu)) * 1e6 / $num }")"
    # Reads after the load has settled, then after a full compaction.
    "$program" "${flags[@]}" --db="$db" --use_existing_db=1 \
        --benchmarks=readrandom,readrandom,readmissing,seekrandom,readseq,readreverse,compact,readrandom,readrandom,readmissing,seekrandom,readseq,readreverse \
        2>/dev/null | grep ' ops/sec ' | grep -v '^compact' |
        awk -v engine="$engine" -v round="$round" '{
            count[$1]++
            for (i = 1; i <= NF; i++) if ($i == "ops/sec") ops = $(i - 1)
            n = count[$1]
            if ($1 == "readrandom") { if (n % 2) next; n = n / 2 }
            print engine, round, $1 (n == 1 ? "" : "-compacted"), ops
        }'
    echo "$engine $round space-MiB $(du -sm --exclude='*.wal' --exclude='*.log' "$db" | cut -f1)"
    rm -rf "$db"
}

echo "engine round benchmark value"
for round in $(seq "$rounds"); do
    for engine in sapwood rocksdb rocksdb sapwood; do
        one "$engine" "${!engine}" "$round"
    done
done | tee "$folder/all"

echo
echo "median of all rounds"
awk 'function median(list,   n, part, i, j, t) {
        n = split(list, part, " ")
        for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (part[j] + 0 < part[i] + 0) { t = part[i]; part[i] = part[j]; part[j] = t }
        return n % 2 ? part[(n + 1) / 2] : (part[n / 2] + part[n / 2 + 1]) / 2
    }
    { if (!($3 in seen)) { seen[$3] = 1; order[++names] = $3 }; values[$1 " " $3] = values[$1 " " $3] " " $4 }
    END {
        printf "%-24s %14s %14s %8s\n", "", "sapwood", "rocksdb", "ratio"
        for (i = 1; i <= names; i++) {
            s = median(values["sapwood " order[i]]); r = median(values["rocksdb " order[i]])
            printf "%-24s %14.2f %14.2f %8.2f\n", order[i], s, r, r ? s / r : 0
        }
    }' "$folder/all"
