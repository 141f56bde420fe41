#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Simulated histories of a library: uploads, prunes, deletions, reads on a store that fails, with
# processes that are killed and machines that lose power. Prints histories a second and how often
# each fault and operation occurred; a seed that fails says how to repeat it.
set -euo pipefail
cd "$(dirname "$0")/.."
export RELEVO_SEEDS=${RELEVO_SEEDS:-10000}
cargo test --profile checked --package image-library --lib simulation::tests::histories -- --nocapture
