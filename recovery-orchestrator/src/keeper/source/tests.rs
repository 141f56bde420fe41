// SPDX-License-Identifier: MIT OR Apache-2.0
//! A library that goes away, comes back, and has lost something.

use std::sync::atomic::AtomicU8;

use image_library::{Error, Image, Result};

use super::*;

const THERE: u8 = 0;
const AWAY: u8 = 1;
const DAMAGED: u8 = 2;

/// A library of one disk, in one of three states.
#[derive(Debug, Clone)]
struct Moody {
    state: Arc<AtomicU8>,
    byte: u8,
}

impl Moody {
    fn new(state: u8, byte: u8) -> Self {
        let state = Arc::new(AtomicU8::new(state));
        Self { state, byte }
    }

    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::SeqCst) == state
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    fn source(&self) -> Source {
        let library = self.clone();
        Source::new(
            format!("library {}", self.byte),
            Box::new(move || Ok(Box::new(library.clone()))),
        )
    }

    fn away() -> Error {
        Error::Unreachable {
            location: "library".to_owned(),
            source: "connection refused".into(),
        }
    }
}

/// Nobody asks for them here.
#[derive(Debug)]
struct NoHashes;

impl DiskHashes for NoHashes {
    fn image(&self) -> ImageId {
        ImageId::from_uuid(uuid::Uuid::from_u128(7))
    }

    fn chunk_count(&self) -> u64 {
        16
    }

    fn chunk_size_bytes(&self) -> u32 {
        64 << 10
    }

    fn leaf(&self, _number: u64) -> Result<Vec<Option<ContentHash>>> {
        Ok(vec![None; 16])
    }
}

impl ReadAt for Moody {
    fn length_bytes(&self) -> u64 {
        1 << 20
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> disk::Result<()> {
        let source = if self.is(AWAY) {
            Self::away()
        } else if self.is(DAMAGED) {
            Error::ChunkMissing {
                chunk: "c0ffee".to_owned(),
            }
        } else {
            buffer.fill(self.byte);
            return Ok(());
        };
        Err(disk::Error::Device {
            action: "read",
            offset,
            length: 1,
            source: Box::new(source),
        })
    }
}

impl ImageReader for Moody {
    fn images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    fn image(&self, _id: ImageId) -> Result<Image> {
        if self.is(AWAY) {
            return Err(Self::away());
        }
        let image = r#"{"id": "00000000-0000-0000-0000-000000000007", "server": "web",
            "taken_at": "2026-11-20T23:30:00Z", "received_at": "2026-11-20T23:30:00Z",
            "consistency": "crash", "disks": [], "stored_bytes": 0, "generation": 0}"#;
        Ok(serde_json::from_str(image).unwrap())
    }

    fn open_disk(&self, _id: ImageId, _disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(self.clone()))
    }

    fn disk_hashes(&self, _id: ImageId, _disk: DiskIndex) -> Result<Arc<dyn DiskHashes>> {
        Ok(Arc::new(NoHashes))
    }

    fn side_file(&self, _id: ImageId, _name: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn put_side_file(&self, _id: ImageId, _name: &str, _content: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn disk_of(libraries: &[&Moody]) -> (KeptDisk, Arc<KeptImage>, Arc<Notices>) {
    let notices = Arc::new(Notices::default());
    let id = ImageId::from_uuid(uuid::Uuid::from_u128(7));
    let sources = libraries.iter().map(|library| library.source()).collect();
    let image = Arc::new(KeptImage::new(id, sources, Arc::clone(&notices)));
    let disk = KeptDisk::new(Arc::clone(&image), DiskIndex(0), 1 << 20);
    (disk, image, notices)
}

fn read(disk: &KeptDisk) -> disk::Result<u8> {
    let mut byte = [0];
    disk.read_exact_at(0x1000, &mut byte).map(|()| byte[0])
}

#[test]
fn a_read_waits_for_a_library_that_is_away_and_is_answered_when_it_is_back() {
    let library = Moody::new(AWAY, 7);
    let (disk, _, notices) = disk_of(&[&library]);
    thread::scope(|scope| {
        let answer = scope.spawn(|| read(&disk));
        while notices.waiting().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!answer.is_finished());
        library.set(THERE);
        assert_eq!(answer.join().unwrap().unwrap(), 7);
    });
    assert_eq!(notices.waiting(), None);
    assert_eq!(notices.findings(), []);
}

#[test]
fn what_is_lost_is_an_error_at_once_and_a_finding_with_its_place() {
    let library = Moody::new(DAMAGED, 7);
    let (disk, _, notices) = disk_of(&[&library]);
    let error = read(&disk).unwrap_err();
    disk.note_damage(0x1000, &error);
    let findings = notices.findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].code, "boot.chunk.damaged");
    assert!(
        findings[0].place.ends_with("disk 0, byte 0x1000"),
        "{findings:?}"
    );
    assert!(findings[0].problem.contains("c0ffee"), "{findings:?}");
}

#[test]
fn what_is_lost_is_read_from_a_replica_which_is_said() {
    let (library, replica) = (Moody::new(DAMAGED, 7), Moody::new(THERE, 8));
    let (disk, _, notices) = disk_of(&[&library, &replica]);
    assert_eq!(read(&disk).unwrap(), 8);
    let findings = notices.findings();
    assert_eq!(findings[0].level, Level::Warning);
    assert!(findings[0].problem.contains("library 8"), "{findings:?}");
}

#[test]
fn packs_that_are_missing_with_the_whole_library_are_no_damage() {
    /// The directory of a library that is not mounted.
    #[derive(Debug)]
    struct Unmounted(Moody);
    let library = Moody::new(DAMAGED, 7);
    let unmounted = Unmounted(library.clone());
    impl ImageReader for Unmounted {
        fn images(&self) -> Result<Vec<Image>> {
            Ok(Vec::new())
        }
        fn image(&self, id: ImageId) -> Result<Image> {
            if self.0.is(DAMAGED) {
                return Err(Error::NoSuchImage {
                    problem: id.to_string(),
                });
            }
            self.0.image(id)
        }
        fn open_disk(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
            self.0.open_disk(id, disk)
        }
        fn disk_hashes(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn DiskHashes>> {
            self.0.disk_hashes(id, disk)
        }
        fn side_file(&self, _id: ImageId, _name: &str) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }
        fn put_side_file(&self, _id: ImageId, _name: &str, _content: &[u8]) -> Result<()> {
            Ok(())
        }
    }
    let notices = Arc::new(Notices::default());
    let id = ImageId::from_uuid(uuid::Uuid::from_u128(7));
    let moody = unmounted.0.clone();
    let open = move || Ok(Box::new(Unmounted(moody.clone())) as Box<dyn ImageReader>);
    let source = Source::new("/mnt/library".to_owned(), Box::new(open));
    let image = Arc::new(KeptImage::new(id, vec![source], Arc::clone(&notices)));
    let disk = KeptDisk::new(Arc::clone(&image), DiskIndex(0), 1 << 20);
    thread::scope(|scope| {
        let answer = scope.spawn(|| read(&disk));
        while notices.waiting().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        library.set(THERE);
        assert_eq!(answer.join().unwrap().unwrap(), 7);
    });
    assert_eq!(notices.findings(), []);
}

#[test]
fn nobody_waits_any_more_when_the_machine_has_ended() {
    let library = Moody::new(AWAY, 7);
    let (disk, image, notices) = disk_of(&[&library]);
    thread::scope(|scope| {
        let answer = scope.spawn(|| read(&disk));
        while notices.waiting().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        image.end();
        assert!(answer.join().unwrap().is_err());
    });
    assert_eq!(notices.findings(), []);
}
