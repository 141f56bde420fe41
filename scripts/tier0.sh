#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Tier 0: every package's own tests and the rules of the code base. No root, no virtual machine.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --workspace --exclude e2e "$@"
cargo test --package e2e --lib --test tidy "$@"
