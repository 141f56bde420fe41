#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The benchmarks, in release mode, on the sample servers. Prints the tables; keeps them in
# tests/benches/RESULTS.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/fixtures/build/lib/common.sh
scripts/prepare-machine.sh bench
# The other three are the guests that only their own kernel writes.
for server in sample btrfs uefi-xfs lvm-xfs; do
    tests/fixtures/build/server.sh $server >/dev/null
done
tests/fixtures/build/booted.sh sample >/dev/null
scripts/build-guest-writer.sh >/dev/null
say "building in release mode, then measuring (more than an hour, then hours for a library of 10 TiB)"
cargo bench --package e2e --bench conversion
cargo bench --package e2e --bench recovery
cargo bench --package e2e --bench library
# BENCH_MEMORY=none leaves it out.
[ "${BENCH_MEMORY:-}" = none ] || cargo bench --package e2e --bench memory
