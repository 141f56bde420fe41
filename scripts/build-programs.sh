#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Builds the programs in release mode and prints the directory they are in.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --bins >&2
scripts/build-guest-writer.sh >/dev/null
printf '%s/release\n' "$(realpath "${CARGO_TARGET_DIR:-target}")"
