#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The benchmarks, in release mode, on the sample server. Prints the tables; keeps them in
# tests/benches/RESULTS.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/fixtures/build/lib/common.sh
scripts/prepare-machine.sh drill
tests/fixtures/build/server.sh sample >/dev/null
say "building in release mode, then measuring (a few minutes)"
cargo bench --package e2e --bench conversion
