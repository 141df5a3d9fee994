#!/usr/bin/env bash
# Runs the tests of the crates with unsafe modules under AddressSanitizer, and a part of the
# integration tests: mapped, pinned, epoch-freed and shared memory.
#
# AddressSanitizer detects accesses to freed or foreign heap memory, and to the stack, in tested Rust
# code. Inside mapped memory (the arenas of memtables, the cache, log segments) it detects only
# accesses beyond the mapping. Leaks count too, unless ASAN_OPTIONS excludes them.
#
# Needs a nightly toolchain, since the flag is unstable, and x86-64 Linux; without them it reports so
# and exits with 0. Takes no arguments. Builds into target/asan (or CARGO_TARGET_DIR/asan). The
# standard library and the C codec are not instrumented.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=x86_64-unknown-linux-gnu

skip() {
    printf 'asan: skipped: %s\n' "$*"
    exit 0
}

[[ $(uname -sm) == "Linux x86_64" ]] || skip "this is not x86-64 Linux"
cargo +nightly --version >/dev/null 2>&1 || skip "there is no nightly toolchain (rustup toolchain install nightly)"
sysroot=$(rustc +nightly --print sysroot)
[[ -d $sysroot/lib/rustlib/$target ]] || skip "the nightly toolchain lacks the target $target"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/asan
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address -Cforce-frame-pointers=yes"
# Stack traces include lines only if the symbolizer is found.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}

run() {
    printf '+ %s\n' "$*"
    "$@"
}

# Documentation tests would need the flag in other places and have no unsafe code; --lib and --tests leave them out.
started=$SECONDS
run cargo +nightly test --target "$target" -p sapwood-memtable -p sapwood-storage -p sapwood --lib --tests
run cargo +nightly test --target "$target" -p sapwood-tests --test it -- \
    concurrency:: iterator:: snapshot:: batch:: keyspace:: faults::
printf 'asan: nothing found, %d s\n' $((SECONDS - started))
