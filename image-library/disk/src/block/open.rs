// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only door to disk files: detects the format and gives a device.
//!
//! What a file says about itself is not trusted: a qcow2 image may name any path as its backing
//! file, and a raw disk whose owner wrote a qcow2 header into its first sector looks like qcow2.
//! So backing files are opened only when the caller says so, a block device is raw unless the
//! caller says otherwise, and the caller can name the format instead of having it detected.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::DiskFile;
use super::format::{Detected, DiskFormat, HEAD_BYTES, detect};
use super::qcow2::{Header, Qcow2Image, read_header};
use super::{ReadAt, SectorSize, array_at};
use crate::error::{Error, Result};

/// Longer chains of backing files are not opened; a chain that goes in a circle ends here too.
const CHAIN_LIMIT: usize = 32;

/// Whether the files that an image names as its backing are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackingFiles {
    /// An image with a backing file is an error. Right for images from elsewhere.
    #[default]
    Refuse,
    /// They are opened, wherever they are. Right for images that the operator made.
    Follow,
}

/// How to open a disk.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Whether backing files are opened.
    pub backing_files: BackingFiles,
    /// The format; `None`: detected.
    pub format: Option<DiskFormat>,
    /// The logical sector size; `None`: asked of a device, guessed for a file.
    pub sector_size: Option<SectorSize>,
}

/// A disk that was opened, and what was found out about it.
#[derive(Debug, Clone)]
pub struct OpenedDisk {
    /// Its bytes.
    pub device: Arc<dyn ReadAt>,
    /// The format of the file.
    pub format: DiskFormat,
    /// The logical sector size.
    pub sector_size: SectorSize,
    /// The backing files, nearest first.
    pub backing_files: Vec<PathBuf>,
}

/// Opens a disk file or block device, read only.
pub fn open_disk(path: &Path, options: &OpenOptions) -> Result<OpenedDisk> {
    let mut backing_files = Vec::new();
    let (device, format, device_sector_size) = open_link(
        path,
        options.format,
        options.backing_files,
        &mut backing_files,
    )?;
    if device.length_bytes() == 0 {
        return Err(not_a_disk(
            path,
            "it is empty",
            "name the disk itself; an empty file may be what a failed copy left",
        ));
    }
    let sector_size = match options.sector_size.or(device_sector_size) {
        Some(known) => known,
        None => guess_sector_size(&*device)?,
    };
    Ok(OpenedDisk {
        device,
        format,
        sector_size,
        backing_files,
    })
}

/// The logical sector size of a disk image, by where the header of its GPT stands; 512 bytes
/// where there is none.
///
/// The header is in sector 1 and its copy in the last one, and says in which sector it is.
pub fn guess_sector_size(device: &dyn ReadAt) -> Result<SectorSize> {
    let length = device.length_bytes();
    for size in [SectorSize::B512, SectorSize::B4096] {
        let sector = u64::from(size.bytes());
        let last = (length / sector).saturating_sub(1);
        for lba in [1, last] {
            let offset = lba * sector;
            if offset + 32 > length {
                continue;
            }
            let mut header = [0; 32];
            device.read_exact_at(offset, &mut header)?;
            let own_lba = u64::from_le_bytes(array_at(&header, 24));
            if header.starts_with(b"EFI PART") && own_lba == lba {
                return Ok(size);
            }
        }
    }
    Ok(SectorSize::B512)
}

type Link = (Arc<dyn ReadAt>, DiskFormat, Option<SectorSize>);

/// Opens one file of a chain, and what it stands on.
fn open_link(
    path: &Path,
    format: Option<DiskFormat>,
    policy: BackingFiles,
    chain: &mut Vec<PathBuf>,
) -> Result<Link> {
    let file = DiskFile::open(path)?;
    let format = match format {
        Some(named) => named,
        None if file.is_block_device() => DiskFormat::Raw,
        None => detect_file(&file)?,
    };
    let sector_size = file.sector_size()?;
    let device: Arc<dyn ReadAt> = match format {
        DiskFormat::Raw => {
            check_raw(&file)?;
            Arc::new(file)
        }
        DiskFormat::Qcow2 => {
            let header = read_header(&file)?;
            let backing = open_backing(path, &header, policy, chain)?;
            Arc::new(Qcow2Image::open(Arc::new(file), header, backing)?)
        }
        other => {
            return Err(Error::unsupported(
                "disk image",
                format!("the format {other} of {}", path.display()),
            ));
        }
    };
    Ok((device, format, sector_size))
}

fn detect_file(file: &DiskFile) -> Result<DiskFormat> {
    let length = usize::try_from(file.length_bytes()).unwrap_or(usize::MAX);
    let mut head = vec![0; length.min(HEAD_BYTES)];
    let mut tail = vec![0; length.min(512)];
    file.read_exact_at(0, &mut head)?;
    file.read_exact_at(file.length_bytes() - tail.len() as u64, &mut tail)?;
    match detect(&head, &tail) {
        Detected::Disk(format) => Ok(format),
        Detected::NotADisk { is, hint } => {
            Err(not_a_disk(file.path(), &format!("it is a {is}"), hint))
        }
    }
}

fn check_raw(file: &DiskFile) -> Result<()> {
    match file.length_bytes() % 512 {
        0 => Ok(()),
        _ => Err(not_a_disk(
            file.path(),
            &format!(
                "expected a multiple of 512 bytes, found {}",
                file.length_bytes()
            ),
            "a raw disk image consists of whole sectors: if this is one, it was cut off while it \
             was copied",
        )),
    }
}

fn open_backing(
    image: &Path,
    header: &Header,
    policy: BackingFiles,
    chain: &mut Vec<PathBuf>,
) -> Result<Option<Arc<dyn ReadAt>>> {
    let Some(name) = &header.backing_name else {
        return Ok(None);
    };
    if policy == BackingFiles::Refuse {
        return Err(Error::BackingRefused {
            image: image.to_owned(),
            backing: name.clone(),
        });
    }
    if chain.len() >= CHAIN_LIMIT {
        return Err(Error::Limit {
            what: "the number of backing files",
            limit: CHAIN_LIMIT as u64,
        });
    }
    let format = match header.backing_format.as_deref() {
        None => None,
        Some("raw" | "file" | "host_device") => Some(DiskFormat::Raw),
        Some("qcow2") => Some(DiskFormat::Qcow2),
        Some(other) => {
            return Err(Error::unsupported(
                "qcow2",
                format!("a backing file of format {other}"),
            ));
        }
    };
    let path = backing_path(image, name)?;
    chain.push(path.clone());
    match open_link(&path, format, policy, chain) {
        Ok((device, ..)) => Ok(Some(device)),
        Err(error) => Err(in_chain(image, path, error)),
    }
}

/// Names which image asked for the backing file that could not be opened; only the innermost
/// failure of a chain is told.
fn in_chain(image: &Path, backing: PathBuf, error: Error) -> Error {
    match error {
        Error::Backing { .. } | Error::Limit { .. } => error,
        source => Error::Backing {
            image: image.to_owned(),
            backing,
            source: Box::new(source),
        },
    }
}

/// A relative name is relative to the image; `file:` is the only protocol.
fn backing_path(image: &Path, name: &str) -> Result<PathBuf> {
    let name = match name.split_once(':') {
        Some(("file", path)) => path,
        Some((protocol, _)) if protocol.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            return Err(Error::unsupported(
                "qcow2",
                format!("a backing file by the protocol `{protocol}`"),
            ));
        }
        _ => name,
    };
    // The image may be a link; QEMU too takes the directory of the name that it was given.
    Ok(image.parent().unwrap_or(Path::new("")).join(name))
}

fn not_a_disk(path: &Path, problem: &str, hint: &'static str) -> Error {
    Error::NotADisk {
        path: path.to_owned(),
        problem: problem.to_owned(),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Backing, MemoryDevice, Overlay, OverlayOptions, WriteAt};
    use rstest::rstest;

    fn directory_with(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        (directory, path)
    }

    fn open_error(path: &Path) -> Error {
        open_disk(path, &OpenOptions::default()).expect_err("it is no disk")
    }

    /// An overlay with one changed byte over a disk of 1 KiB, naming `backing`.
    fn write_overlay(path: &Path, backing: &str) {
        let base = Arc::new(MemoryDevice::from(vec![1; 1024]));
        let overlay = Overlay::new(base, OverlayOptions::default());
        let backing = Backing {
            name: backing.to_owned(),
            format: "raw".to_owned(),
        };
        overlay
            .save_qcow2(path, Some(backing))
            .expect("there is room");
    }

    const FOLLOW: OpenOptions = OpenOptions {
        backing_files: BackingFiles::Follow,
        format: None,
        sector_size: None,
    };

    #[test]
    fn a_raw_file_is_opened() {
        let (_directory, path) = directory_with("disk.raw", &[0; 1024]);
        let disk = open_disk(&path, &OpenOptions::default()).expect("two sectors");
        assert_eq!(disk.format, DiskFormat::Raw);
        assert_eq!(disk.sector_size, SectorSize::B512);
        assert_eq!(disk.device.length_bytes(), 1024);
        let options = OpenOptions {
            sector_size: Some(SectorSize::B4096),
            ..OpenOptions::default()
        };
        let disk = open_disk(&path, &options).expect("two sectors");
        assert_eq!(disk.sector_size, SectorSize::B4096);
    }

    #[rstest]
    #[case::empty(b"", "it is empty")]
    #[case::text(b"hello\n", "it is a text file")]
    #[case::odd(&[0; 700], "expected a multiple of 512 bytes, found 700")]
    #[case::gzip(b"\x1f\x8b\x08\0", "it is a gzip-compressed file")]
    fn what_is_no_disk_is_refused_with_a_hint(#[case] content: &[u8], #[case] problem: &str) {
        let (_directory, path) = directory_with("file", content);
        let error = open_error(&path);
        let expected = format!("{} is not a disk: {problem}", path.display());
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    }

    #[test]
    fn another_format_is_named_with_the_way_to_convert_it() {
        let (_directory, path) = directory_with("disk.vhdx", b"vhdxfile\0\0\0\0");
        let error = open_error(&path);
        let expected = format!(
            "disk image: the format vhdx of {} is not supported",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("qemu-img convert"), "{hint}");
    }

    #[test]
    fn a_missing_file_is_told() {
        let error = open_error(Path::new("/nonexistent/disk.raw"));
        assert_eq!(error.to_string(), "open /nonexistent/disk.raw");
    }

    #[test]
    fn a_named_format_is_not_detected() {
        let (_directory, path) = directory_with("disk", &[b'Q', b'F', b'I', 0xfb].repeat(128));
        assert!(open_disk(&path, &OpenOptions::default()).is_err());
        let options = OpenOptions {
            format: Some(DiskFormat::Raw),
            ..OpenOptions::default()
        };
        let disk = open_disk(&path, &options).expect("the caller knows");
        assert_eq!(disk.format, DiskFormat::Raw);
    }

    #[test]
    fn a_backing_file_is_opened_only_when_allowed() {
        let (directory, base) = directory_with("base.raw", &[1; 1024]);
        let image = directory.path().join("top.qcow2");
        write_overlay(&image, "base.raw");
        let error = open_error(&image);
        let expected = format!(
            "{} needs the backing file `base.raw`, which it may not open by itself",
            image.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("allow backing files"))
        );
        let disk = open_disk(&image, &FOLLOW).expect("allowed");
        assert_eq!(disk.backing_files, [base]);
        let mut read = [0; 3];
        disk.device.read_exact_at(1021, &mut read).expect("inside");
        assert_eq!(read, [1; 3]);
    }

    #[test]
    fn a_missing_backing_file_is_told_with_a_hint() {
        let directory = tempfile::tempdir().expect("a directory");
        let image = directory.path().join("top.qcow2");
        write_overlay(&image, "gone.raw");
        let error = open_disk(&image, &FOLLOW).expect_err("it is gone");
        let expected = format!(
            "open {}, the backing file of {}",
            directory.path().join("gone.raw").display(),
            image.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("qemu-img rebase"))
        );
    }

    #[test]
    fn a_backing_file_that_is_broken_gives_its_own_hint() {
        let (directory, _base) = directory_with("base.raw", &[1; 700]);
        let image = directory.path().join("top.qcow2");
        write_overlay(&image, "file:base.raw");
        let error = open_disk(&image, &FOLLOW).expect_err("it is cut off");
        assert!(matches!(error, Error::Backing { .. }), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("cut off")));
    }

    #[test]
    fn a_chain_in_a_circle_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let image = directory.path().join("top.qcow2");
        let base = Arc::new(MemoryDevice::from(vec![1; 1024]));
        let backing = Backing {
            name: "top.qcow2".to_owned(),
            format: "qcow2".to_owned(),
        };
        Overlay::new(base, OverlayOptions::default())
            .save_qcow2(&image, Some(backing))
            .expect("there is room");
        let error = open_disk(&image, &FOLLOW).expect_err("it stands on itself");
        assert_eq!(
            error.to_string(),
            "the number of backing files would exceed the limit of 32"
        );
    }

    #[rstest]
    #[case(
        "nbd://host/export",
        Err("qcow2: a backing file by the protocol `nbd` is not supported")
    )]
    #[case(
        "json:{\"driver\":\"raw\"}",
        Err("qcow2: a backing file by the protocol `json` is not supported")
    )]
    #[case("file:base.raw", Ok("/images/base.raw"))]
    #[case("../base.raw", Ok("/images/../base.raw"))]
    #[case("/base.raw", Ok("/base.raw"))]
    #[case("./a:b", Ok("/images/./a:b"))]
    fn the_name_of_a_backing_file_is_relative_to_the_image(
        #[case] name: &str,
        #[case] expected: Result<&str, &str>,
    ) {
        let found = backing_path(Path::new("/images/top.qcow2"), name);
        let found = found.map_err(|error| error.to_string());
        assert_eq!(
            found.as_deref().map_err(String::as_str),
            expected.map(Path::new)
        );
    }

    #[test]
    fn the_sector_size_of_an_image_is_where_its_gpt_says() {
        let device = MemoryDevice::from(vec![0; 1 << 20]);
        assert_eq!(guess_sector_size(&device).expect("blank"), SectorSize::B512);
        let last = (1 << 20) / 4096 - 1;
        let header = [&b"EFI PART"[..], &[0; 16], &u64::to_le_bytes(last)].concat();
        device.write_all_at(last * 4096, &header).expect("inside");
        assert_eq!(guess_sector_size(&device).expect("copy"), SectorSize::B4096);
        let header = [&b"EFI PART"[..], &[0; 16], &u64::to_le_bytes(1)].concat();
        device.write_all_at(512, &header).expect("inside");
        assert_eq!(guess_sector_size(&device).expect("first"), SectorSize::B512);
        let tiny = MemoryDevice::from(vec![0; 8]);
        assert_eq!(guess_sector_size(&tiny).expect("tiny"), SectorSize::B512);
    }
}
