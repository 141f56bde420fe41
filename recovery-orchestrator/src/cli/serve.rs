// SPDX-License-Identifier: MIT OR Apache-2.0
//! `relevo image serve`: the disks of an image for every program that speaks NBD.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use disk::block::{Overlay, OverlayOptions};
use image_library::program::{Verdict, print_json, print_line};
use image_library::{FileError, Image, ImageRef, Library, TlsFiles};
use recovery_orchestrator::interrupt::Interrupt;
use recovery_orchestrator::nbd::{Access, Export, Server};
use recovery_orchestrator::{Error, Result};
use serde_json::json;
use tempfile::TempDir;

use super::context::Context;
use super::output::Format;

/// What clients may write to one disk, in bytes of memory.
const WRITTEN_BYTES_MAX: u64 = 512 << 20;

const NOTES: &str = "\
Serves until Ctrl-C, and prints a URI for each disk: qemu-img, nbdcopy and nbdinfo take them.
The image itself is never written. With --writable, up to 512 MiB of changes per disk are kept in
memory and are gone at the end.";

#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct ServeArguments {
    /// Which image
    image: ImageRef,
    /// Listen on a unix socket here [default: in a new temporary directory]
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    socket: Option<PathBuf>,
    /// Listen on TCP; without a certificate on a loopback address only
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The certificate for TLS, with those above it
    #[arg(long, value_name = "PEM", requires_all = ["private_key", "listen"])]
    certificate: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(long, value_name = "PEM", requires = "certificate")]
    private_key: Option<PathBuf>,
    /// Only for clients with a certificate of these authorities [default: for everybody]
    #[arg(long, value_name = "PEM", requires = "certificate")]
    client_ca: Option<PathBuf>,
    /// Let clients write; what they wrote is gone at the end
    #[arg(long)]
    writable: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(context: &Context, arguments: &ServeArguments) -> Result<Verdict> {
    let (library, image) = context.open_image(&arguments.image)?;
    let exports = exports(&*library, &image, arguments.writable)?;
    let interrupt = Interrupt::install(super::end_at_once)?;
    // Outlives the server, whose socket is in it.
    let (server, _directory) = start(arguments, exports)?;
    tell(&server, &image, arguments);
    context.say("Serving; Ctrl-C ends it");
    while !interrupt.is_raised() {
        interrupt.sleep(Duration::from_secs(3600));
    }
    drop(server);
    context.say("Ended.");
    Ok(Verdict::Done)
}

fn start(arguments: &ServeArguments, exports: Vec<Export>) -> Result<(Server, Option<TempDir>)> {
    if let Some(address) = arguments.listen {
        let tls = tls_files(arguments).map(|files| files.server_config());
        let server = Server::start_tcp(address, tls.transpose()?, exports)?;
        return Ok((server, None));
    }
    if let Some(path) = &arguments.socket {
        // A relative path would mean something else to whoever takes the URI elsewhere.
        let path = std::path::absolute(path).map_err(FileError::on("find", path))?;
        return Ok((Server::start(&path, exports)?, None));
    }
    let parent = env::temp_dir();
    let directory = TempDir::with_prefix_in("relevo-nbd-", &parent)
        .map_err(FileError::on("create a directory in", parent))?;
    let server = Server::start(&directory.path().join("socket"), exports)?;
    Ok((server, Some(directory)))
}

fn tls_files(arguments: &ServeArguments) -> Option<TlsFiles<'_>> {
    Some(TlsFiles {
        certificate: arguments.certificate.as_deref()?,
        private_key: arguments.private_key.as_deref()?,
        client_authorities: arguments.client_ca.as_deref(),
    })
}

fn exports(library: &dyn Library, image: &Image, writable: bool) -> Result<Vec<Export>> {
    let export = |disk: &image_library::ImageDisk| {
        let device = library.open_disk(image.id, disk.index)?;
        let options = OverlayOptions {
            limit_bytes: WRITTEN_BYTES_MAX,
        };
        Ok(Export {
            name: format!("disk{}", disk.index),
            access: if writable {
                Access::Writable(Arc::new(Overlay::new(device, options)))
            } else {
                Access::ReadOnly(device)
            },
            block_size_bytes: disk.sector_size.bytes(),
        })
    };
    let exports: Result<Vec<Export>> = image.disks.iter().map(export).collect();
    match exports {
        Ok(exports) if exports.is_empty() => Err(Error::Request {
            problem: format!("{}@{} has no disks", image.server, image.id),
            hint: Some("choose another image: relevo image list".to_owned()),
        }),
        exports => exports,
    }
}

fn tell(server: &Server, image: &Image, arguments: &ServeArguments) {
    let disks = image.disks.iter().map(|disk| {
        let name = format!("disk{}", disk.index);
        let uri = server.endpoint().uri(&name);
        (disk, name, uri)
    });
    if !arguments.format.json {
        disks.for_each(|(_, _, uri)| print_line(&uri));
        return;
    }
    let disks = disks.map(|(disk, export, uri)| {
        json!({
            "export": export, "uri": uri, "name": disk.name, "size_bytes": disk.size_bytes,
        })
    });
    print_json(&json!({
        "image": format!("{}@{}", image.server, image.id),
        "writable": arguments.writable,
        "disks": disks.collect::<Vec<_>>(),
    }));
}
