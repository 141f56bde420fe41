#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The whole way once: a server's disk becomes a running virtual machine, and a report says so.
# Everything is kept in the cache; a second run builds nothing again.
set -euo pipefail
. "$(dirname "$0")/../tests/fixtures/build/lib/common.sh"
export PATH=$PATH:/usr/sbin:/sbin
drill_dir=$CACHE_DIR/drill
library=$drill_dir/library
report=$drill_dir/report
build=$BUILD_DIR

say "1/6 what this machine needs"
"$PROJECT_DIR/scripts/prepare-machine.sh" drill

say "2/6 building Relevo (release)"
bin=$("$PROJECT_DIR/scripts/build-programs.sh")

say "3/6 the sample server: a physical Debian server"
server=$("$build/server.sh" sample)

say "4/6 does it start on virtio as it is?"
"$build/prove-virtio-fails.sh" "$server"

say "5/6 snapshot of its disk into the library $library"
mkdir -p "$drill_dir"
printf 'state = "%s"\n' "$drill_dir/state" >"$drill_dir/relevo.toml"
[ -e "$library" ] || "$bin/image-library" init "$library"
"$bin/p2v-agent" snapshot --library "$library" --state "$drill_dir/agent" --server sample --disk "$server/disk.raw"

say "6/6 drill of runbooks/sample.yaml"
rm -rf "$report"
status=0
"$bin/relevo" --config "$drill_dir/relevo.toml" --library "$library" drill run "$PROJECT_DIR/runbooks/sample.yaml" --report "$report" || status=$?
say "the report is in $report"
ls "$report" >&2 || true
exit "$status"
