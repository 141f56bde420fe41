// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel with an initramfs of any kind, and the rest of a server that starts it with GRUB 2.

use disk::filesystem::FilesystemKind;

use crate::guest::compression::{Compression, compress};
use crate::guest::cpio::Writer;
use crate::phony::servers::ELF;
use crate::phony::{Node, PhonyGuest, mbr, tree, volume};

const ROOT_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c01";
const SWAP_UUID: &str = "6f1cc2f4-8d5a-4f0e-9b6e-1f6f0a0b0c02";

/// A module: path below `kernel/` without its end, what it needs, a device that it answers to.
pub(crate) type Module = (&'static str, &'static [&'static str], &'static str);

/// The drivers of a kernel of this century's second decade.
pub(crate) const MODERN: &[Module] = &[
    ("drivers/virtio/virtio", &[], ""),
    ("drivers/virtio/virtio_ring", &["virtio"], ""),
    (
        "drivers/virtio/virtio_pci",
        &["virtio_ring", "virtio"],
        "pci:v00001AF4d*sv*sd*bc*sc*i*",
    ),
    (
        "drivers/block/virtio_blk",
        &["virtio_ring", "virtio"],
        "virtio:d00000002v*",
    ),
    ("drivers/scsi/scsi_mod", &[], ""),
    (
        "drivers/scsi/virtio_scsi",
        &["scsi_mod", "virtio_ring", "virtio"],
        "virtio:d00000008v*",
    ),
    ("drivers/scsi/sd_mod", &["scsi_mod"], "scsi:t-0x00*"),
    (
        "drivers/net/virtio_net",
        &["virtio_ring", "virtio"],
        "virtio:d00000001v*",
    ),
    ("drivers/ata/libata", &["scsi_mod"], ""),
    ("drivers/ata/libahci", &["libata"], ""),
    (
        "drivers/ata/ahci",
        &["libahci", "libata"],
        "pci:v*d*sv*sd*bc01sc06i01*",
    ),
    (
        "drivers/ata/ata_piix",
        &["libata"],
        "pci:v00008086d00007010sv*sd*bc*sc*i*",
    ),
    (
        "drivers/scsi/megaraid/megaraid_sas",
        &["scsi_mod"],
        "pci:v00001000d0000005Dsv*sd*bc*sc*i*",
    ),
    (
        "drivers/net/e1000",
        &[],
        "pci:v00008086d0000100Esv*sd*bc*sc*i*",
    ),
];

/// The same with one for btrfs.
pub(crate) fn with_btrfs() -> Vec<Module> {
    let btrfs: Module = ("fs/btrfs/btrfs", &[], "fs-btrfs");
    MODERN.iter().copied().chain([btrfs]).collect()
}

/// Linux 2.6.9 of RHEL 4: no virtio, IDE linked in.
pub(crate) const LINUX_2_6_9: &[Module] = &[
    ("drivers/scsi/scsi_mod", &[], ""),
    ("drivers/scsi/sd_mod", &["scsi_mod"], ""),
    ("drivers/scsi/libata", &["scsi_mod"], ""),
    (
        "drivers/scsi/ata_piix",
        &["libata", "scsi_mod"],
        "pci:v00008086d00007010sv*sd*bc*sc*i*",
    ),
    (
        "drivers/scsi/sym53c8xx_2/sym53c8xx",
        &["scsi_mod"],
        "pci:v00001000d00000012sv*sd*bc*sc*i*",
    ),
    (
        "drivers/net/e1000/e1000",
        &[],
        "pci:v00008086d0000100Esv*sd*bc*sc*i*",
    ),
];

/// A kernel with its initramfs.
pub(crate) struct PhonyImage<'a> {
    pub(crate) version: &'a str,
    /// Names in `/boot`; `{}` is the version.
    pub(crate) kernel: &'a str,
    pub(crate) initramfs: &'a str,
    /// Where `lib` is: "" or "/usr".
    pub(crate) usr: &'a str,
    pub(crate) modules: &'a [Module],
    /// The end of module files.
    pub(crate) suffix: &'a str,
    /// Modules inside the initramfs, by name.
    pub(crate) inside: &'a [&'a str],
    /// Trees inside.
    pub(crate) files: &'a [&'a str],
    pub(crate) compression: Compression,
    /// Whether an archive with microcode comes first.
    pub(crate) microcode: bool,
    /// Whether the kernel has `modules.builtin`, as from 2.6.33 on.
    pub(crate) has_builtin_list: bool,
    /// `/boot/config-<version>`.
    pub(crate) config: &'a str,
}

impl Default for PhonyImage<'_> {
    fn default() -> Self {
        Self {
            version: "",
            kernel: "vmlinuz-{}",
            initramfs: "initrd.img-{}",
            usr: "/usr",
            modules: MODERN,
            suffix: ".ko",
            inside: &[],
            files: &[],
            compression: Compression::Gzip,
            microcode: false,
            has_builtin_list: true,
            config: "",
        }
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().expect("a path has a last part")
}

impl PhonyImage<'_> {
    fn path_of(&self, name: &str, suffix: &str) -> String {
        let mut modules = self.modules.iter();
        let (path, _, _) = modules
            .find(|(path, _, _)| name_of(path) == name)
            .expect("the tests name known modules");
        format!("kernel/{path}{suffix}")
    }

    pub(crate) fn kernel(&self) -> String {
        self.kernel.replace("{}", self.version)
    }

    pub(crate) fn initramfs(&self) -> String {
        self.initramfs.replace("{}", self.version)
    }

    /// Puts the kernel and its initramfs into a directory, and its modules.
    pub(crate) fn put(&self, guest: &PhonyGuest, boot: &str) {
        guest.file(&format!("{boot}/{}", self.kernel()), "kernel");
        guest.file(&format!("{boot}/{}", self.initramfs()), self.archive());
        if !self.config.is_empty() {
            guest.file(&format!("{boot}/config-{}", self.version), self.config);
        }
        let directory = format!("{}/lib/modules/{}", self.usr, self.version);
        let (mut dep, mut alias) = (String::new(), String::new());
        for (path, needs, pattern) in self.modules {
            let needs = needs.iter().map(|name| self.path_of(name, self.suffix));
            let needs = needs.collect::<Vec<_>>().join(" ");
            dep += &format!("kernel/{path}{}: {needs}\n", self.suffix);
            if !pattern.is_empty() {
                alias += &format!("alias {pattern} {}\n", name_of(path));
            }
            let content = format!("module {path}").into_bytes();
            let content = match self.suffix {
                ".ko.xz" => compress(&content, Compression::Xz),
                ".ko.gz" => compress(&content, Compression::Gzip),
                ".ko.zst" => compress(&content, Compression::Zstd),
                _ => Ok(content),
            };
            guest.file(
                &format!("{directory}/kernel/{path}{}", self.suffix),
                content.expect("modules are compressed in ways that we write"),
            );
        }
        guest.file(&format!("{directory}/modules.dep"), dep);
        guest.file(&format!("{directory}/modules.alias"), alias);
        if self.has_builtin_list {
            guest.file(&format!("{directory}/modules.builtin"), "");
        }
    }

    fn archive(&self) -> Vec<u8> {
        let nash = self.files.iter().any(|tree| tree.contains("== bin/nash\n"));
        let inside = self.inside.iter().map(|name| {
            let path = if nash {
                format!("lib/{name}.ko")
            } else {
                let path = self.path_of(name, ".ko");
                format!("lib/modules/{}/{path}", self.version)
            };
            (path, Node::File(format!("inside {name}").into(), 0o644))
        });
        let files = self.files.iter().flat_map(|tree| tree::nodes(tree));
        let files = files.map(|(path, node)| (path.to_owned(), node));
        let files: Vec<(String, Node)> = inside.chain(files).collect();
        let usr = Node::Symlink("usr/lib".to_owned());
        let merged = files.iter().any(|(_, node)| *node == usr);
        let placed = files.into_iter().map(|(path, node)| {
            let path = match path.strip_prefix("lib/") {
                Some(rest) if merged => format!("usr/lib/{rest}"),
                _ => path,
            };
            match node {
                Node::File(content, _) => {
                    let mode = mode_of(&path);
                    (path, Node::File(content, mode))
                }
                node => (path, node),
            }
        });
        let main =
            compress(&tree::archive(placed), self.compression).expect("we write this compression");
        let mut early = Vec::new();
        if self.microcode {
            let mut writer = Writer::new(0);
            writer.directory("kernel", 0o755).expect("a name fits");
            writer
                .file("kernel/x", 0o644, &[7; 900])
                .expect("a name fits");
            early = writer.finish();
            early.resize(early.len().next_multiple_of(512), 0);
        }
        [early, main].concat()
    }
}

fn mode_of(path: &str) -> u32 {
    let is_program = path == "init" || path.starts_with("bin/") || path.ends_with(".sh");
    if is_program { 0o755 } else { 0o644 }
}

/// A server with one disk, a root and a swap space, and this kernel.
pub(crate) fn server(
    id: &str,
    version: &str,
    image: &PhonyImage<'_>,
    arguments: &str,
) -> PhonyGuest {
    let guest = mbr([
        volume(FilesystemKind::Ext3, ROOT_UUID).at("/"),
        volume(FilesystemKind::Swap, SWAP_UUID),
    ]);
    if image.usr == "/usr" {
        guest.put("/lib", Node::Symlink("usr/lib".to_owned()));
    }
    image.put(&guest, "/boot");
    guest.file("/bin/sh", ELF.to_vec());
    let words = [
        ("ID", id),
        ("VERSION", version),
        ("ROOT", ROOT_UUID),
        ("KERNEL", &image.kernel()),
        ("INITRAMFS", &image.initramfs()),
        ("ARGUMENTS", arguments),
    ];
    guest.tree(SERVER, &words);
    guest
}

const SERVER: &str = r#"
== /etc/os-release
PRETTY_NAME="{ID} {VERSION}"
ID={ID}
VERSION_ID="{VERSION}"
== /etc/passwd
root:x:0:0::/root:/bin/sh
== /etc/fstab
UUID={ROOT} / ext3 defaults 1 1
== /boot/grub2/i386-pc/normal.mod
== /boot/grub2/grub.cfg
menuentry 'Linux' {
	linux	/boot/{KERNEL} {ARGUMENTS} console=ttyS0,115200
	initrd	/boot/{INITRAMFS}
}
"#;
