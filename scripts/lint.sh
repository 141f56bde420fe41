#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# What needs no test run to be known: formatting, clippy, documentation, and, where cargo-deny is
# installed or can be built, licences and advisories.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/fixtures/build/lib/common.sh
say "formatting"
cargo fmt --all --check
say "clippy"
cargo clippy --workspace --all-targets --quiet -- -D warnings
say "documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --quiet
# Built once into the cache, outside the checkout; where there is no registry the check is left out.
export PATH=$PATH:$CACHE_DIR/tools/bin
if ! command -v cargo-deny >/dev/null; then
    say "building cargo-deny (some minutes, once)"
    (logged "$CACHE_DIR/log/cargo-deny.log" \
        cargo install cargo-deny --locked --no-default-features --profile dev --root "$CACHE_DIR/tools") || true
fi
if command -v cargo-deny >/dev/null; then
    say "licences and sources of the dependencies"
    cargo deny --offline check licenses bans sources
    if [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ]; then
        cargo deny --offline check advisories
    else
        echo "skipped: advisories, no advisory database on this machine"
    fi
else
    echo "skipped: cargo-deny cannot be built here (see $CACHE_DIR/log/cargo-deny.log)"
fi
say "shell scripts"
for script in .ci/run scripts/*.sh tests/fixtures/build/*.sh tests/fixtures/build/lib/*.sh; do
    bash -n "$script"
done
