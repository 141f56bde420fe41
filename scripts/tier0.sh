#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Tier 0: every package's unit tests and the rules of the code base. Nothing outside is needed; a
# test that compares with a tool is skipped where the tool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# A few histories and a small catalogue: `make test` has more of both.
export RELEVO_SEEDS=${RELEVO_SEEDS:-60} RELEVO_CATALOGUE_CHUNKS=${RELEVO_CATALOGUE_CHUNKS:-16384}
cargo test --workspace --exclude e2e --lib --bins "$@"
cargo test --package e2e --lib --test tidy "$@"
