#!/usr/bin/env bash
# Runs fuzz targets one after the other and prints a table of the results.
#
#   fuzz/run.sh <seconds per target> [target…]
#
# Builds first, with cargo-fuzz (installed if missing) and a nightly compiler. Environment variables:
#
#   SANITIZER   none (the default: fastest), address, …
#   RUNS        stop a target after this many executions, if the seconds are not over before
#   MAX_LEN     the longest input, in bytes: 4096 if not set; targets have limits of their own below that
#   BINARIES    a folder with existing programs; nothing is built then
#   STATE       the folder of grown corpora, findings and logs; fuzz/artifacts if not set
#
# The committed corpus of a target is only read; new inputs go to STATE/corpus/<target>. A finding is
# kept in STATE/crashes; its replay command is printed, and the exit code is 1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ $# -lt 1 || ! $1 =~ ^[0-9]+$ ]]; then
    sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
seconds=$1
shift
sanitizer=${SANITIZER:-none}
state=${STATE:-$here/artifacts}
if [[ $# -gt 0 ]]; then
    targets=("$@")
else
    mapfile -t targets < <(for file in "$here"/fuzz_targets/*.rs; do basename "$file" .rs; done)
fi

if [[ -n ${BINARIES:-} ]]; then
    binaries=$BINARIES
else
    cargo +nightly fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
    (cd "$here" && cargo +nightly fuzz build --sanitizer "$sanitizer")
    host=$(rustc -vV | sed -n 's/^host: //p')
    binaries=${CARGO_TARGET_DIR:-$here/target}/$host/release
fi

mkdir -p "$state/crashes" "$state/logs"
printf '%-16s %12s %9s %8s %8s %8s %8s\n' target executions exec/s cov ft corpus crashes
failed=0
for target in "${targets[@]}"; do
    mkdir -p "$state/corpus/$target"
    log=$state/logs/$target.log
    arguments=(
        -max_total_time="$seconds" -max_len="${MAX_LEN:-4096}" -timeout=60 -rss_limit_mb=1024 -print_final_stats=1
        -artifact_prefix="$state/crashes/$target-"
    )
    if [[ -n ${RUNS:-} ]]; then
        arguments+=(-runs="$RUNS")
    fi
    status=0
    "$binaries/$target" "${arguments[@]}" "$state/corpus/$target" "$here/corpus/$target" >"$log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log" | tail -n 1)
    last=$(grep -E '^#[0-9]+.* cov: ' "$log" | tail -n 1 || true)
    field() { sed -n "s/.* $1: \([0-9]*\).*/\1/p" <<<"$last"; }
    crashes=$(find "$state/crashes" -name "$target-*" | wc -l)
    printf '%-16s %12s %9s %8s %8s %8s %8s\n' "$target" "${executions:-0}" "${rate:-0}" \
        "$(field cov)" "$(field ft)" "$(field corp)" "$crashes"
    if [[ $status -ne 0 ]]; then
        failed=1
        found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        grep -m 1 -A 1 'panicked at' "$log" || tail -n 3 "$log"
        printf 'replay with: TARGET=%s INPUT=%s cargo test -p sapwood-tests --test it corpora::one\n' "$target" "$found"
    fi
done
exit $failed
