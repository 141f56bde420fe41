#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Every tier that this machine can run. A test that cannot run says `skipped: <reason>`; the skips
# are counted and listed at the end. E2E_REQUIRE=all turns them into failures.
#
# E2E_BUILD=sample (the default) builds the main sample server if need be, E2E_BUILD=all every one.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/fixtures/build/lib/common.sh
export PATH=$PATH:/usr/sbin:/sbin
servers=tests/fixtures/build

scripts/prepare-machine.sh test
case ${E2E_BUILD:-sample} in
    all) wanted=$($servers/server.sh --list) ;;
    none) wanted= ;;
    *) wanted=sample ;;
esac
for name in $wanted; do
    say "sample server $name"
    $servers/prove-virtio-fails.sh "$($servers/server.sh "$name")"
done

log=$CACHE_DIR/log/test.log
mkdir -p "$(dirname "$log")"
say "building the programs and the tests"
cargo build --workspace --bins
cargo test --workspace --no-run

# The runner keeps what a passing test prints and shows it at the end of each test binary; the log
# has all of it, the terminal the results.
say "running the tests (the whole log: $log)"
set +e
cargo test --workspace --no-fail-fast -- --show-output 2>&1 | tee "$log" |
    grep --line-buffered -E '^(test |     Running|   Doc-tests|failures:|---- .* stdout|thread|error|test result)'
status=${PIPESTATUS[0]}
set -e

passed=$(grep -cE '^test .* \.\.\. ok$' "$log" || true)
failed=$(grep -cE '^test .* \.\.\. FAILED$' "$log" || true)
skipped=$(grep -c '^skipped: ' "$log" || true)
if [ "$skipped" != 0 ]; then
    echo
    echo "skipped, with the reason:"
    grep '^skipped: ' "$log" | sort | uniq -c | sort -rn
fi
echo
echo "$((passed - skipped)) passed, $failed failed, $skipped skipped"
exit "$status"
