#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Deletes what the scripts keep between runs. A half-made root filesystem in it belongs to root.
set -euo pipefail
. "$(dirname "$0")/../tests/fixtures/build/lib/common.sh"
for part in servers booted packages drill log; do
    [ ! -e "$CACHE_DIR/$part" ] || as_root rm -rf --one-file-system "$CACHE_DIR/$part"
done
say "deleted: $CACHE_DIR/{servers,booted,packages,drill,log}"
