#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Installs what the drill, the tests or the benchmarks need from Debian's packages, and says so first. Nothing is
# done when all of it is there. Works as root or with sudo.
#
# prepare-machine.sh [drill|test|bench|reference]    reference: what `bench` would like to have besides
#
# QEMU comes from the machine's own release. Only where qemu-utils of the backports is installed
# already, which would not go together with it, QEMU is taken from the backports of the same mirror.
set -euo pipefail
. "$(dirname "$0")/../tests/fixtures/build/lib/common.sh"
export PATH=$PATH:/usr/sbin:/sbin

# tool:package; the tool tells whether the package is needed, wherever it came from.
wanted=(
    cc:gcc qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils
    debootstrap:debootstrap mke2fs:e2fsprogs sfdisk:fdisk mkswap:util-linux perl:perl-base
)
# What the library is measured beside.
mode=${1:-drill}
[ "$mode" != bench ] || wanted+=(restic:restic borg:borgbackup zstd:zstd qemu-nbd:qemu-utils)
[ "$mode" != test ] || wanted+=(
    cpio:cpio depmod:kmod mkfs.fat:dosfstools mcopy:mtools sgdisk:gdisk xz:xz-utils zstd:zstd lz4:lz4
    lzop:lzop nbdcopy:libnbd-bin thin_restore:thin-provisioning-tools mdadm:mdadm
    cryptsetup:cryptsetup-bin busybox:busybox-static mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs
    pvck:lvm2 virt-xml-validate:libvirt-clients virsh:libvirt-clients xmllint:libxml2-utils jsonschema:python3-jsonschema
)

missing_packages() {
    local pair
    for pair in "${wanted[@]}"; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done
    # Headers leave no tool in the path.
    [ -e /usr/include/stdio.h ] || echo libc6-dev
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
    if [ "$mode" = test ]; then
        # Firmware of the servers with UEFI.
        compgen -G '/usr/share/OVMF/OVMF_CODE*.fd' >/dev/null || echo ovmf
        # Boot sectors to be told apart.
        [ -e /usr/lib/grub/i386-pc/boot.img ] || echo grub-pc-bin
        [ -e /usr/lib/syslinux/mbr/mbr.bin ] || echo syslinux-common
        # What xl reads its configuration with; the package has Xen's version in its name.
        compgen -G '/usr/lib/*/libxlutil.so.*' >/dev/null ||
            apt-cache --names-only search '^libxenmisc[0-9]' | awk '{ print $1 }' | sort -V | tail -n 1
    fi
}

# The backports' suite when qemu-utils is from there, otherwise nothing.
qemu_suite() {
    local version codename
    version=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null || true)
    if [[ $version == *~bpo* ]]; then
        codename=$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")
        printf '%s-backports\n' "$codename"
    fi
}

suite_is_known() {
    apt-get indextargets --format '$(CODENAME)' 'Created-By: Packages' | grep -qx "$1"
}

add_backports() {
    local file=/etc/apt/sources.list.d/relevo-backports.list
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $1 main" |
        as_root tee "$file" >/dev/null
}

# virt-v2v, which our conversion is measured beside. Its appliance needs a kernel: where the computer
# has none, as in a container, one is unpacked into the cache, not installed. Where any of it cannot be
# had, the benchmark says so in its row.
reference_tool() {
    local folder=$CACHE_DIR/appliance kernel
    if ! command -v virt-v2v >/dev/null || ! command -v nbdkit >/dev/null; then
        say "this will be installed from Debian's packages, to measure beside it: virt-v2v nbdkit"
        logged "$CACHE_DIR/log/install.log" as_root apt-get -q update
        install virt-v2v nbdkit
    fi
    if compgen -G '/boot/vmlinuz-*' >/dev/null || [ -e "$folder/complete" ]; then
        return
    fi
    kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    say "this will be unpacked into $folder, to start the appliance with: $kernel"
    rm -rf "$folder"
    mkdir -p "$folder"
    (cd "$folder" && logged "$CACHE_DIR/log/install.log" apt-get -q download "$kernel")
    dpkg-deb -x "$folder"/linux-image-*.deb "$folder"
    rm "$folder"/linux-image-*.deb
    depmod -b "$folder" "$(ls "$folder/lib/modules")"
    # supermin looks at the directory, whatever is in it.
    [ -d /lib/modules ] || as_root mkdir /lib/modules
    touch "$folder/complete"
}

finish() {
    # A shell of its own: neither `set -e` nor `fail` ends more than that.
    if [ "$mode" = bench ] && ! bash "$0" reference; then
        say "virt-v2v cannot be had: the benchmark of the conversion goes without"
    fi
    say "$1"
    exit 0
}

install() {
    logged "$CACHE_DIR/log/install.log" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qy --no-install-recommends install "$@"
}

if [ "$mode" = reference ]; then
    reference_tool
    exit 0
fi
mapfile -t packages < <(missing_packages | sort -u)
if [ ${#packages[@]} = 0 ]; then
    finish "everything that is needed is installed"
fi
. /etc/os-release
[ "${ID:-}" = debian ] || [[ "${ID_LIKE:-}" == *debian* ]] ||
    fail "these packages are missing: ${packages[*]}" "this script knows Debian only; install them by hand"

options=()
backports=
if [[ " ${packages[*]} " == *" qemu-system-x86 "* ]]; then
    backports=$(qemu_suite)
fi
say "this will be installed from Debian's packages: ${packages[*]}"
if [ -n "$backports" ]; then
    say "QEMU comes from $backports, as the installed qemu-utils does"
    options=(-t "$backports")
    if ! suite_is_known "$backports"; then
        say "$backports will be added to the package sources (/etc/apt/sources.list.d/relevo-backports.list)"
        add_backports "$backports"
    fi
fi
logged "$CACHE_DIR/log/install.log" as_root apt-get -q update
others=()
for package in "${packages[@]}"; do
    if [ "$package" = qemu-system-x86 ]; then
        install "$package" "${options[@]}"
    else
        others+=("$package")
    fi
done
[ ${#others[@]} = 0 ] || install "${others[@]}"
finish "installed"
