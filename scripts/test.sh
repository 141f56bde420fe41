#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Every tier that this machine can run. A test that cannot run says `skipped: <reason>`; the skips
# are counted and listed at the end. E2E_REQUIRE=all turns them into failures.
#
# The sample servers are kept in the cache; what is not there is built first. By default that is the
# main one, and of the next four as many as are begun within E2E_BUILD_MINUTES (25); E2E_BUILD=sample:
# the main one only; E2E_BUILD=all: every one, none: none. With all, tests/RESULTS.md is written anew.
# E2E_GARAGE=none leaves out the quarter of an hour in which the S3 store of the tests is built once.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/fixtures/build/lib/common.sh
export PATH=$PATH:/usr/sbin:/sbin
servers=tests/fixtures/build

scripts/prepare-machine.sh test
case ${E2E_BUILD:=some} in
    all) wanted=$($servers/server.sh --list) ;;
    some) wanted=$($servers/server.sh --list | head -n 5) ;;
    none) wanted= ;;
    *) wanted=sample ;;
esac
[ "$E2E_BUILD" != all ] || export E2E_RESULTS=1
building_ends=$(($(date +%s) + 60 * ${E2E_BUILD_MINUTES:-25}))
for name in $wanted; do
    if [ "$E2E_BUILD" = some ] && [ "$name" != sample ] && [ "$(date +%s)" -ge "$building_ends" ] &&
        [ ! -e "$($servers/server.sh --path "$name")/server.json" ]; then
        say "sample server $name: not in the cache, and no time is left to build it"
        continue
    fi
    say "sample server $name"
    if ! path=$($servers/server.sh "$name"); then
        # One that is not built is counted as skipped by its test.
        [ "$E2E_BUILD" = some ] && [ "$name" != sample ] ||
            fail "the sample server $name cannot be built"
        say "sample server $name: it cannot be built here"
        continue
    fi
    $servers/prove-virtio-fails.sh "$path"
done

# The store that a library in a bucket is tested with.
if [ "${E2E_GARAGE:-build}" != none ]; then
    (tests/fixtures/build/garage.sh >/dev/null) || say "Garage cannot be built here: its tests are skipped"
fi

# Kernel modules of a package that sample servers were built from: what we write about modules is
# compared with what depmod writes about the same ones.
module_tree() {
    local package tree
    package=$(find "$CACHE_DIR/packages" -name 'linux-image-[0-9]*.deb' 2>/dev/null | sort | tail -1)
    if [ -z "$package" ]; then
        find /lib/modules -mindepth 2 -maxdepth 2 -name kernel -exec dirname {} \; 2>/dev/null | head -1
        return
    fi
    tree=$CACHE_DIR/modules/$(basename "$package" .deb)
    if [ ! -d "$tree" ]; then
        rm -rf "$tree.partial"
        mkdir -p "$tree.partial"
        dpkg-deb -x "$package" "$tree.partial"
        mv "$tree.partial" "$tree"
    fi
    dirname "$(find "$tree" -type d -path '*lib/modules/*' -name kernel | head -1)"
}
if [ -z "${E2E_MODULE_TREE:-}" ]; then
    tree=$(module_tree)
    [ -z "$tree" ] || export E2E_MODULE_TREE=$tree
fi

log=$CACHE_DIR/log/test.log
mkdir -p "$(dirname "$log")"
say "building the programs and the tests"
cargo build --workspace --bins
scripts/build-guest-writer.sh >/dev/null
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
# What the failed tests said, again at the end, where it is looked for.
awk '/^test .* \.\.\. FAILED$/ { failed[$2] = 1 }
    /^---- .* stdout ----$/ { lines = failed[$2] && !shown[$2]++ ? 60 : 0 }
    /^(failures|successes):$/ { lines = 0 }
    lines-- > 0' "$log"
echo
echo "$((passed - skipped)) passed, $failed failed, $skipped skipped"
exit "$status"
