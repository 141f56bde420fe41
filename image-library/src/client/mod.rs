// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client of a library server: the same traits as a library that is a directory.
//!
//! Everything but the beginning of an upload may be repeated without harm, so a request that
//! breaks off is tried again a bounded number of times. Calls block; none may be made from a
//! thread that runs an async executor.

mod connection;
mod device;
mod hashes;
mod trust;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use disk::ReadAt;

use crate::access::{DiskHashes, ImageReader, ImageWriter, Upload, UploadTarget};
use crate::client::connection::Connection;
pub use crate::client::connection::plain_http_client;
use crate::client::device::{DirectDevice, RemoteDevice};
use crate::client::hashes::{HashesOf, RemoteHashes};
pub use crate::client::trust::{ServerAccess, TokenSource};
use crate::client::upload::RemoteUpload;
use crate::document::Image;
use crate::error::{Error, Result};
use crate::id::{DiskIndex, ImageId, ServerName};
use crate::protocol::{
    API_VERSION, NOT_FOUND, SERVICE, ServiceDescription, UploadOpened, UploadRequest, WantedList,
};
use crate::wanted::WantedRange;

/// For how long the first question to a server is repeated.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// How patient a client is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For how long a request is repeated before the server counts as unreachable.
    pub give_up_after: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
}

impl Default for Patience {
    /// A server that is restarted is not noticed to have been away.
    fn default() -> Self {
        Self {
            give_up_after: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(120),
        }
    }
}

/// A library behind a server.
#[derive(Debug)]
pub struct RemoteLibrary {
    connection: Arc<Connection>,
    chunk_size_bytes: u32,
}

impl RemoteLibrary {
    /// Connects to the server at `https://HOST:PORT` and asks what it is.
    pub fn connect(url: &str, access: &ServerAccess) -> Result<Self> {
        Self::connect_with(url, access, Patience::default())
    }

    /// Like [`RemoteLibrary::connect`], with another patience.
    ///
    /// The first question is repeated for a second at most: a wrong address is told at once.
    pub fn connect_with(url: &str, access: &ServerAccess, patience: Patience) -> Result<Self> {
        let asking = Patience {
            give_up_after: patience.give_up_after.min(FIRST_PATIENCE),
            ..patience
        };
        let description: ServiceDescription =
            Connection::open(url, access, asking)?.get_json("describe itself", &["v1"], &[])?;
        let connection = Connection::open(url, access, patience)?;
        let ServiceDescription {
            service,
            api,
            chunk_size_bytes,
        } = description;
        if service != SERVICE || api != API_VERSION {
            return Err(connection.protocol(format!(
                "expected {SERVICE} with version {API_VERSION} of the interface, \
                 found {service:?} with version {api}"
            )));
        }
        if !chunk_size_bytes.is_power_of_two() || !(4096..=4 << 20).contains(&chunk_size_bytes) {
            return Err(connection.protocol(format!(
                "expected a chunk size that is a power of two, found {chunk_size_bytes}"
            )));
        }
        Ok(Self {
            connection: Arc::new(connection),
            chunk_size_bytes,
        })
    }

    fn hashes(&self, of: HashesOf) -> Result<Option<RemoteHashes>> {
        RemoteHashes::open(Arc::clone(&self.connection), of, self.chunk_size_bytes)
    }
}

impl ImageReader for RemoteLibrary {
    fn images(&self) -> Result<Vec<Image>> {
        self.connection
            .get_json("list its images", &["v1", "images"], &[])
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        let path = ["v1", "images", &id.to_string()];
        self.connection.get_json("show an image", &path, &[])
    }

    fn open_disk(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        let device = RemoteDevice::open(Arc::clone(&self.connection), id, disk)?;
        Ok(Arc::new(device))
    }

    fn open_disk_direct(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn ReadAt>> {
        let device = DirectDevice::open(Arc::clone(&self.connection), id, disk)?;
        Ok(Arc::new(device))
    }

    fn disk_hashes(&self, id: ImageId, disk: DiskIndex) -> Result<Arc<dyn DiskHashes>> {
        let hashes = self.hashes(HashesOf::Image { image: id, disk })?;
        let hashes = hashes.ok_or_else(|| {
            let problem = format!("no hashes of disk {disk} of image {id}");
            self.connection.protocol(problem)
        })?;
        Ok(Arc::new(hashes))
    }

    fn side_file(&self, id: ImageId, name: &str) -> Result<Option<Vec<u8>>> {
        let path = ["v1", "images", &id.to_string(), "files", name];
        match self.connection.get_bytes("give a file", &path, &[], None) {
            Ok(answer) => Ok(Some(answer.bytes)),
            Err(Error::ServerRefused { code, .. }) if code == NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put_side_file(&self, id: ImageId, name: &str, content: &[u8]) -> Result<()> {
        let path = ["v1", "images", &id.to_string(), "files", name];
        let content = bytes::Bytes::copy_from_slice(content);
        self.connection
            .send_bytes("keep a file", connection::Method::Put, &path, &[], &content)?;
        Ok(())
    }
}

impl ImageWriter for RemoteLibrary {
    fn chunk_size_bytes(&self) -> u32 {
        self.chunk_size_bytes
    }

    fn begin(&self, target: &UploadTarget) -> Result<Box<dyn Upload>> {
        let request = UploadRequest {
            server: target.server.clone(),
        };
        let opened: UploadOpened =
            self.connection
                .post_json("begin an upload", &["v1", "uploads"], &request)?;
        Ok(Box::new(RemoteUpload::new(
            Arc::clone(&self.connection),
            request.server,
            opened.upload,
            self.chunk_size_bytes,
        )))
    }

    fn latest_hashes(
        &self,
        server: &ServerName,
        disk_name: &str,
    ) -> Result<Option<Arc<dyn DiskHashes>>> {
        let hashes = self.hashes(HashesOf::latest(server, disk_name))?;
        Ok(hashes.map(|hashes| Arc::new(hashes) as Arc<dyn DiskHashes>))
    }

    fn wanted(&self, server: &ServerName) -> Result<Vec<WantedRange>> {
        let path = ["v1", "servers", server.as_str(), "wanted"];
        let answer = self
            .connection
            .get_json("say what it wants again", &path, &[]);
        match answer {
            Ok(WantedList { ranges }) => Ok(ranges),
            // A server that is older than this question.
            Err(Error::ServerRefused { code, .. }) if code == NOT_FOUND => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
