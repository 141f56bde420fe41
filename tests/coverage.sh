#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Line coverage of the fast tests, per package part, with the compiler's own instrumentation.
#
# Prints a table and fails when a part is below its promise (80 % of `disk` and of the converter's
# inspect, plan and guest). Needs llvm-profdata and llvm-cov of the compiler's LLVM version.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
tool() {
    for name in "$1-$version" "/usr/lib/llvm-$version/bin/$1"; do
        if command -v "$name" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "skipped: coverage needs $1 of LLVM $version (Debian: llvm-$version)" >&2
    exit 77
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

target=${CARGO_TARGET_DIR:-target}/coverage
mkdir -p "$target"
find "$target" -name '*.profraw' -delete

# Instrument only what is measured: flags for all dependencies would rebuild and slow them.
export CARGO_TARGET_DIR=$target
export RUSTFLAGS="-C instrument-coverage --cfg coverage"
export LLVM_PROFILE_FILE="$PWD/$target/run-%p-%m.profraw"
case $target in /*) LLVM_PROFILE_FILE="$target/run-%p-%m.profraw" ;; esac

packages=(-p disk -p converter)
cargo test --quiet "${packages[@]}" --lib >"$target/tests.log" 2>&1 || {
    tail -50 "$target/tests.log"
    exit 1
}
objects=$(cargo test --quiet "${packages[@]}" --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sed 's/^/--object=/')
"$profdata" merge --sparse --failure-mode=all -o "$target/tests.profdata" $(find "$target" -name 'run-*.profraw')
# shellcheck disable=SC2086 # one word per object is meant
"$cov" export --summary-only --instr-profile="$target/tests.profdata" $objects >"$target/summary.json"

python3 - "$target/summary.json" <<'PYTHON'
import json
import sys

PARTS = {
    "disk": ("image-library/disk/src/",),
    "converter inspect, plan, guest": (
        "converter/src/inspect",
        "converter/src/plan",
        "converter/src/guest",
    ),
}
PROMISED_PERCENT = 80

files = json.load(open(sys.argv[1]))["data"][0]["files"]
failed = False
for part, prefixes in PARTS.items():
    lines = [
        f["summary"]["lines"]
        for f in files
        if any("/" + prefix in f["filename"] for prefix in prefixes)
    ]
    covered = sum(line["covered"] for line in lines)
    count = sum(line["count"] for line in lines)
    percent = 100 * covered / max(count, 1)
    print(f"{percent:5.1f} %  {covered:6} of {count:6} lines  {part}")
    failed |= percent < PROMISED_PERCENT
sys.exit("coverage is below what is promised" if failed else 0)
PYTHON
