#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Builds the program that writes in a guest, statically, and puts it where `relevo` of the same target directory
# looks for it: libexec/relevo, beside debug and release. Prints its path.
#
# It cannot be a plain part of the workspace's build: the C library is linked in, and to the others it is not.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --release -p guest-writer --target "$target" >&2
directory=$(realpath -m "${CARGO_TARGET_DIR:-target}")
mkdir -p "$directory/libexec/relevo"
# Renamed into its place: it may be read at this moment.
cp "$directory/$target/release/relevo-guest-writer" "$directory/libexec/relevo/.relevo-guest-writer.new"
mv "$directory/libexec/relevo/.relevo-guest-writer.new" "$directory/libexec/relevo/relevo-guest-writer"
printf '%s\n' "$directory/libexec/relevo/relevo-guest-writer"
