#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Lines that the fast tests cover, per package, with cargo-llvm-cov or, without it, with the
# compiler's own instrumentation and LLVM's tools.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/fixtures/build/lib/common.sh
command -v cargo-llvm-cov >/dev/null ||
    fail "cargo-llvm-cov is not installed" "cargo install cargo-llvm-cov; it needs the llvm-tools component or LLVM_COV and LLVM_PROFDATA"
cargo llvm-cov --workspace --exclude e2e --summary-only "$@"
