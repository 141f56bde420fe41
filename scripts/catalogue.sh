#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The memory of every operation on a library with as many chunks as RELEVO_TIB TiB have (1 unless
# told), in chunks of 64 KiB. Prints the peak and the CPU time of each; fails beyond 64 MiB for a TiB.
# A run of several TiB that was interrupted goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/fixtures/build/lib/common.sh
tib=${RELEVO_TIB:-1}
place=$CACHE_DIR/catalogue

# 2.3 GiB of packs and 0.8 GiB of index for each TiB, room to merge an index, and for 1 TiB a copy.
needed=$((4 * tib + 4))
kept=$place/$tib-TiB
[ "$tib" -eq 1 ] && kept=$place
mkdir -p "$kept"
used=$(du -sBG "$kept" | tr -dc '0-9\t' | cut -f1)
free=$(($(df --output=avail -BG "$place" | tail -1 | tr -dc 0-9) + used))
[ "$free" -ge "$needed" ] || fail "$free GiB are free in $place, $needed are needed" \
    "name a smaller library with RELEVO_TIB, or another place with RELEVO_CACHE"

say "building an optimised test"
cargo test --quiet --profile checked --package image-library --lib --no-run
say "a library as of $tib TiB (some minutes for each)"
if [ "$tib" -gt 1 ]; then
    export RELEVO_CATALOGUE_KEPT=$kept
fi
RELEVO_CATALOGUE_CHUNKS=$((tib << 24)) TMPDIR=$place cargo test --quiet --profile checked \
    --package image-library --lib -- --exact tests::catalogue::every_operation_stays_within_its_memory --nocapture
