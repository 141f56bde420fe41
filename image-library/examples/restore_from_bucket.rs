// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures what it takes to read a disk back from a bucket whose store takes its time.
//!
//! `cargo run --release -p image-library --example restore_from_bucket -- [MIB]`
//!
//! The store is a small server in this process, objects in memory, that waits before each answer:
//! 0, 10 and 50 ms. The disk is read from front to back in pieces of 1 MiB, as a copy does, and a
//! part of it in pieces of 64 KiB, as a starting system does; every byte is compared.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use disk::block::MemoryDevice;
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

/// Bytes that no compression makes smaller, so that what is read is what is stored.
fn noise(mib: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity((mib * MIB) as usize);
    while (bytes.len() as u64) < mib * MIB {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Reads `content` back in pieces; gives MB per second.
fn read_back(disk: &dyn ReadAt, content: &[u8], piece: usize) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    let mut buffer = vec![0; piece];
    for (number, expected) in content.chunks(piece).enumerate() {
        let buffer = &mut buffer[..expected.len()];
        disk.read_exact_at((number * piece) as u64, buffer)?;
        if buffer != expected {
            return Err("the disk is another one".into());
        }
    }
    Ok(content.len() as f64 / 1e6 / started.elapsed().as_secs_f64())
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn main() -> Result<(), Box<dyn Error>> {
    let mib = std::env::args()
        .nth(1)
        .map_or(Ok(256), |text| text.parse())?;
    let content = noise(mib);
    let store = Arc::<Store>::default();
    let settings = [
        ("AWS_ENDPOINT_URL", store.start()?),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
    ];
    let location: Location = "s3://bench/library".parse()?;
    let access = |workspace: &tempfile::TempDir| LibraryAccess {
        bucket: BucketAccess {
            settings: settings
                .clone()
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            ..BucketAccess::default()
        },
        workspaces: Some(workspace.path().to_owned()),
        ..LibraryAccess::default()
    };
    let workspace = tempfile::tempdir()?;
    let options = InitOptions::default();
    let library =
        LocalLibrary::init_with_passphrase(&location, access(&workspace), &options, None)?;
    let started = Instant::now();
    let image = put(&library, &content)?;
    let rate = content.len() as f64 / 1e6 / started.elapsed().as_secs_f64();
    println!("stored {mib} MiB at {rate:.0} MB/s");
    println!(
        "{:>6}  {:>14}  {:>14}  {:>8}",
        "delay", "1 MiB pieces", "64 KiB pieces", "requests"
    );
    for delay in [0, 10, 50] {
        store.delay_ms.store(delay, Ordering::Relaxed);
        let mut rates = Vec::new();
        store.requests.store(0, Ordering::Relaxed);
        for piece in [1 << 20, 64 << 10] {
            // Opened anew: nothing is in memory, the index is on disk.
            let library = LocalLibrary::open_with_key(&location, access(&workspace))?;
            let disk = library.open_disk(image, DiskIndex(0))?;
            rates.push(read_back(&*disk, &content, piece)?);
        }
        let requests = store.requests.load(Ordering::Relaxed);
        let [long, short] = rates[..] else { continue };
        println!("{delay:>3} ms  {long:>9.0} MB/s  {short:>9.0} MB/s  {requests:>8}");
    }
    Ok(())
}

fn put(library: &LocalLibrary, content: &[u8]) -> Result<ImageId, Box<dyn Error>> {
    let target = UploadTarget {
        server: "bench".parse()?,
    };
    let disks = [IngestDisk {
        draft: DiskDraft {
            name: "sda".to_owned(),
            size_bytes: content.len() as u64,
            sector_size: SectorSize::B512,
        },
        device: Arc::new(MemoryDevice::from(content.to_vec())),
        used: None,
        known: None,
    }];
    let draft = ImageDraft {
        taken_at: "2026-01-01T00:00:00Z".parse()?,
        consistency: Consistency::Cold,
        machine: None,
    };
    let (image, _) = ingest(library, &target, &disks, &draft, &Silent)?;
    Ok(image.id)
}
