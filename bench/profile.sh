#!/usr/bin/env bash
# Profiles a put, a get, a seek and a merge by function, as Markdown.
#
#   bench/profile.sh > docs/profiles.md
#
# Needs perf (Linux) and the permission to use it. Fills a database of three million rows of 16 + 100
# bytes in a temporary folder and profiles db_bench on it, one benchmark after the other: every thread of
# the process, in user and kernel mode. Functions below one percent are added up. PROFILE_NUM overrides
# the number of rows.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v perf >/dev/null || { printf 'error: perf is needed; it is part of the Linux tools of your distribution\n' >&2; exit 1; }
[[ -n ${DB_BENCH:-} ]] || cargo build --quiet --release --bin db_bench
bench=${DB_BENCH:-${CARGO_TARGET_DIR:-$PWD/target}/release/db_bench}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rows=${PROFILE_NUM:-3000000}

common=(--num="$rows" --cache_size=536870912 --compression_type=none)

# Prepares a database without profiling.
prepare() {
    rm -rf "$scratch/db"
    "$bench" --db="$scratch/db" "${common[@]}" "$@" >/dev/null 2>&1
}

# Profiles a list of benchmarks. Arguments: title, a sentence, whether the database exists, benchmarks,
# further flags.
profile() {
    local title=$1 what=$2 exists=$3 benchmarks=$4
    shift 4
    local flags=("${common[@]}" --use_existing_db="$exists" --benchmarks="$benchmarks" "$@")
    printf 'profiling: %s\n' "$title" >&2
    perf record --quiet --freq 4000 --output "$scratch/perf.data" -- \
        "$bench" --db="$scratch/db" "${flags[@]}" >"$scratch/output" 2>&1
    printf '\n## %s\n\n%s\n\n```text\ndb_bench %s\n' "$title" "$what" "${flags[*]}"
    # Progress reports end with carriage returns; the remaining lines have the time per operation.
    tr '\r' '\n' <"$scratch/output" | grep -E "^(cpu|[a-z]+) +:" | sed 's/ *$//'
    printf '```\n\n| share | thread | function |\n|---:|---|---|\n'
    perf report --input "$scratch/perf.data" --stdio --no-children --sort comm,symbol 2>/dev/null |
        sed -nE 's/^ +([0-9.]+)% +(\S+) +\[(.)\] (.*\S) *$/\1\t\2\t\3\t\4/p' |
        awk -F '\t' '
            {
                sub(/^sapwood-/, "", $2)
                if ($2 == "db_bench") $2 = "client"
                name = $4
                sub(/ +- +-$/, "", name)
                gsub(/\|/, "\\|", name)
                if ($3 == "k") name = name " (kernel)"
                if ($1 >= 1) printf "| %.1f %% | %s | `%s` |\n", $1, $2, name
                else rest[$2 ($3 == "k" ? ", kernel" : "")] += $1
            }
            END { for (thread in rest) if (rest[thread] >= 0.5) printf "| %.1f %% | %s | all others |\n", rest[thread], thread }'
}

printf '# Profiles\n\n'
printf 'Written by `bench/profile.sh`: shares of the samples of all threads, in user and kernel mode. The\nnames of functions are those of the measured build, of which some have changed since.\n'
printf '%s rows of 16 + 100 bytes. Machine: %s, %s processors, Linux %s.\n' "$rows" \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(uname -r)"
rm -rf "$scratch/db"
profile 'Put' 'Random keys, log on, not synced; flushes and compactions beside it.' 0 fillrandom
prepare --benchmarks=fillrandom,overwrite --disable_auto_compactions=1
profile 'Compaction' 'All runs of a fill and an overwrite, merged into one.' 1 compact
profile 'Get' 'Random keys in cache, one run; of three keys two exist.' 1 readrandom,readrandom,readrandom
profile 'Seek' 'Random keys in cache, ten entries each.' 1 seekrandom,seekrandom --seek_nexts=10
profile 'Put with an index' 'As the first, with an index on eight random bytes of each value.' 0 fillindexed
prepare --benchmarks=fillindexed,compact
profile 'Index lookup' 'The rows of random index keys, in cache.' 1 indexlookup,indexlookup,indexlookup
