// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures what it takes to read a disk back from a bucket whose store takes its time.
//!
//! `cargo run --release -p image-library --example restore_from_bucket -- DISK READS`
//!
//! The store is a small server in this process, objects in memory, that waits before each answer:
//! 0, 10 and 50 ms. The disk is written to a raw file, as an export does, and compared. Then the
//! reads of a starting system are made, one after the other, from the file `READS`, which has a
//! line `OFFSET LENGTH` in bytes for each. Prints a Markdown table.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use disk::block::{DiskFile, copy_to_raw};
use disk::{ReadAt, SectorSize, Silent};
use image_library::{
    BucketAccess, Consistency, DiskDraft, DiskIndex, ImageDraft, ImageId, ImageReader, IngestDisk,
    InitOptions, LibraryAccess, LocalLibrary, Location, UploadTarget, ingest,
};

const MIB: u64 = 1 << 20;

/// A store of one bucket.
#[derive(Debug, Default)]
struct Store {
    objects: Mutex<HashMap<String, Arc<Vec<u8>>>>,
    delay_ms: AtomicU64,
    requests: AtomicU64,
}

/// A request, as far as the store looks at it.
struct Request {
    method: String,
    key: String,
    query: HashMap<String, String>,
    range: Option<(usize, usize)>,
    is_creation: bool,
    body: Vec<u8>,
}

impl Store {
    fn start(self: &Arc<Self>) -> Result<String, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let store = Arc::clone(self);
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let store = Arc::clone(&store);
                // A client that goes away ends its thread.
                thread::spawn(move || store.serve(&stream).is_ok());
            }
        });
        Ok(format!("http://{address}"))
    }

    fn serve(&self, stream: &TcpStream) -> Result<(), Box<dyn Error>> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            self.requests.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::Relaxed)));
            let (head, body) = self.answer(request);
            let mut stream = stream;
            write!(
                stream,
                "HTTP/1.1 {head}\r\nETag: \"x\"\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )?;
            stream.write_all(&body)?;
        }
        Ok(())
    }

    fn answer(&self, request: Request) -> (String, Vec<u8>) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let part = |number: &str| format!("{}?{number:0>6}", request.key);
        match (&*request.method, request.query.get("partNumber")) {
            ("PUT", Some(number)) => {
                objects.insert(part(number), request.body.into());
                ("200 OK".to_owned(), Vec::new())
            }
            ("PUT", None) if request.is_creation && objects.contains_key(&request.key) => {
                ("412 Precondition Failed".to_owned(), Vec::new())
            }
            ("PUT", None) => {
                objects.insert(request.key, request.body.into());
                ("200 OK".to_owned(), Vec::new())
            }
            ("POST", _) if request.query.contains_key("uploads") => {
                let text = "<InitiateMultipartUploadResult><UploadId>1</UploadId>\
                            </InitiateMultipartUploadResult>";
                ("200 OK".to_owned(), text.into())
            }
            ("POST", _) => {
                let mut whole = Vec::new();
                for number in 1.. {
                    let Some(bytes) = objects.remove(&part(&number.to_string())) else {
                        break;
                    };
                    whole.extend_from_slice(&bytes);
                }
                objects.insert(request.key, whole.into());
                let text = "<CompleteMultipartUploadResult><ETag>x</ETag>\
                            </CompleteMultipartUploadResult>";
                ("200 OK".to_owned(), text.into())
            }
            ("DELETE", _) => {
                objects.remove(&request.key);
                ("204 No Content".to_owned(), Vec::new())
            }
            _ if request.query.contains_key("list-type") => {
                let prefix = request.query.get("prefix").cloned().unwrap_or_default();
                ("200 OK".to_owned(), listing(&objects, &prefix).into_bytes())
            }
            _ => match objects.get(&request.key).cloned() {
                None => ("404 Not Found".to_owned(), Vec::new()),
                Some(bytes) => {
                    drop(objects);
                    part_of(&bytes, request.range)
                }
            },
        }
    }
}

fn part_of(bytes: &[u8], range: Option<(usize, usize)>) -> (String, Vec<u8>) {
    let Some((first, last)) = range else {
        return ("200 OK".to_owned(), bytes.to_vec());
    };
    let last = last.min(bytes.len().saturating_sub(1));
    let Some(part) = bytes.get(first..=last) else {
        return ("416 Range Not Satisfiable".to_owned(), Vec::new());
    };
    let length = bytes.len();
    let head = format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{length}");
    (head, part.to_vec())
}

fn listing(objects: &HashMap<String, Arc<Vec<u8>>>, prefix: &str) -> String {
    let mut text = "<ListBucketResult>".to_owned();
    for (key, bytes) in objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
        text.push_str(&format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><ETag>x</ETag>\
             <LastModified>2026-11-01T00:00:00.000Z</LastModified></Contents>",
            bytes.len()
        ));
    }
    text + "<IsTruncated>false</IsTruncated></ListBucketResult>"
}

impl Request {
    fn read(reader: &mut BufReader<&TcpStream>) -> Result<Option<Self>, Box<dyn Error>> {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut words = first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (mut length, mut range, mut is_creation) = (0, None, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse()?;
            } else if let Some(value) = line.strip_prefix("range: bytes=") {
                let (first, last) = value.split_once('-').ok_or("a range")?;
                range = Some((first.parse()?, last.parse()?));
            }
            is_creation |= line.starts_with("if-none-match");
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Ok(Some(Self {
            method,
            key: path
                .trim_start_matches("/bench")
                .trim_start_matches('/')
                .to_owned(),
            query: pairs
                .map(|(name, value)| (name.to_owned(), value.replace("%2F", "/")))
                .collect(),
            range,
            is_creation,
            body,
        }))
    }
}

/// One read of a starting system.
struct DiskRead {
    offset: u64,
    length: usize,
}

fn reads_of(path: &Path) -> Result<Vec<DiskRead>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    let read = |line: &str| -> Result<DiskRead, Box<dyn Error>> {
        let (offset, length) = line.split_once(' ').ok_or("a line is not OFFSET LENGTH")?;
        Ok(DiskRead {
            offset: offset.parse()?,
            length: length.parse()?,
        })
    };
    text.lines().map(read).collect()
}

/// What was measured with one delay.
struct Figures {
    restore: Duration,
    restore_requests: u64,
    /// Of each read, the quickest first.
    reads: Vec<Duration>,
    read_requests: u64,
}

impl Figures {
    /// The time that so many of a hundred reads do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let last = self.reads.len().saturating_sub(1);
        self.reads
            .get(last * percent / 100)
            .copied()
            .unwrap_or_default()
    }

    fn row(&self, delay: u64, data_bytes: u64) -> String {
        let seconds = self.restore.as_secs_f64();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        format!(
            "| {delay} ms | {seconds:.2} | {:.0} | {} | {:.2} | {:.2} | {:.1} | {} |",
            data_bytes as f64 / 1e6 / seconds,
            self.restore_requests,
            self.reads.iter().sum::<Duration>().as_secs_f64(),
            milliseconds(self.percentile(50)),
            milliseconds(self.percentile(99)),
            self.read_requests,
        )
    }
}

/// A library in the bucket, and where it is used from.
struct Bench {
    store: Arc<Store>,
    location: Location,
    settings: Vec<(String, String)>,
    work: tempfile::TempDir,
    disk: DiskFile,
    disk_path: PathBuf,
    reads: Vec<DiskRead>,
}

impl Bench {
    fn access(&self) -> LibraryAccess {
        LibraryAccess {
            bucket: BucketAccess {
                settings: self.settings.clone(),
                ..BucketAccess::default()
            },
            workspaces: Some(self.work.path().to_owned()),
            ..LibraryAccess::default()
        }
    }

    /// The disk with nothing of it in memory; the index is on disk.
    fn open(&self, image: ImageId) -> Result<Arc<dyn ReadAt>, Box<dyn Error>> {
        let library = LocalLibrary::open_with_key(&self.location, self.access())?;
        Ok(library.open_disk(image, DiskIndex(0))?)
    }

    fn measure(&self, image: ImageId, delay: u64) -> Result<Figures, Box<dyn Error>> {
        self.store.delay_ms.store(delay, Ordering::Relaxed);
        let copy = self.work.path().join("copy");
        self.store.requests.store(0, Ordering::Relaxed);
        let started = Instant::now();
        copy_to_raw(&*self.open(image)?, &copy, &Silent)?;
        let restore = started.elapsed();
        let restore_requests = self.store.requests.swap(0, Ordering::Relaxed);
        self.compare(&DiskFile::open(&copy)?)?;
        std::fs::remove_file(&copy)?;
        let disk = self.open(image)?;
        let mut reads = Vec::new();
        let (mut buffer, mut expected) = (Vec::new(), Vec::new());
        for read in &self.reads {
            buffer.resize(read.length, 0);
            expected.resize(read.length, 0);
            let started = Instant::now();
            disk.read_exact_at(read.offset, &mut buffer)?;
            reads.push(started.elapsed());
            self.disk.read_exact_at(read.offset, &mut expected)?;
            if buffer != expected {
                return Err("a read gives other bytes".into());
            }
        }
        reads.sort_unstable();
        Ok(Figures {
            restore,
            restore_requests,
            reads,
            read_requests: self.store.requests.load(Ordering::Relaxed),
        })
    }

    fn compare(&self, copy: &DiskFile) -> Result<(), Box<dyn Error>> {
        let (mut left, mut right) = (vec![0; MIB as usize], vec![0; MIB as usize]);
        let length = self.disk.length_bytes();
        for start in (0..length).step_by(MIB as usize) {
            let piece = MIB.min(length - start) as usize;
            self.disk.read_exact_at(start, &mut left[..piece])?;
            copy.read_exact_at(start, &mut right[..piece])?;
            if left[..piece] != right[..piece] {
                return Err("the restored disk is another one".into());
            }
        }
        Ok(())
    }

    fn put(&self) -> Result<(ImageId, u64), Box<dyn Error>> {
        let options = InitOptions::default();
        let library =
            LocalLibrary::init_with_passphrase(&self.location, self.access(), &options, None)?;
        let target = UploadTarget {
            server: "bench".parse()?,
        };
        let disks = [IngestDisk {
            draft: DiskDraft {
                name: "sda".to_owned(),
                size_bytes: self.disk.length_bytes(),
                sector_size: SectorSize::B512,
            },
            device: Arc::new(DiskFile::open(&self.disk_path)?),
            used: None,
            known: None,
        }];
        let draft = ImageDraft {
            taken_at: "2026-01-01T00:00:00Z".parse()?,
            consistency: Consistency::Cold,
            machine: None,
        };
        let (image, _) = ingest(&library, &target, &disks, &draft, &Silent)?;
        Ok((image.id, image.disks[0].data_bytes))
    }
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [disk, reads] = &arguments[..] else {
        return Err("usage: restore_from_bucket DISK READS".into());
    };
    let store = Arc::<Store>::default();
    let settings = [
        ("AWS_ENDPOINT_URL", store.start()?),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
    ];
    let bench = Bench {
        store,
        location: "s3://bench/library".parse()?,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        work: tempfile::tempdir()?,
        disk: DiskFile::open(disk)?,
        disk_path: disk.clone(),
        reads: reads_of(reads)?,
    };
    let (image, data_bytes) = bench.put()?;
    let asked: usize = bench.reads.iter().map(|read| read.length).sum();
    println!(
        "| delay | restore s | MB/s of data | requests | {} reads of {:.1} MB, s | p50 ms | p99 ms | requests |",
        bench.reads.len(),
        asked as f64 / 1e6,
    );
    println!("|---|---|---|---|---|---|---|---|");
    for delay in [0, 10, 50] {
        println!("{}", bench.measure(image, delay)?.row(delay, data_bytes));
    }
    Ok(())
}
