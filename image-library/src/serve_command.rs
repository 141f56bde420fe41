// SPDX-License-Identifier: MIT OR Apache-2.0
//! `image-library serve`: a library over HTTPS.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use image_library::program::{Verdict, print_line};
use image_library::server::{Access, Limits, Server, ServerOptions, TlsIdentity, Transport};
use image_library::{Authority, LibraryAccess, LocalLibrary, Location, Result};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// A directory, or s3://BUCKET[/PREFIX].
    library: Location,
    /// Address and port; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8420")]
    listen: SocketAddr,
    /// A name or address in the URLs of clients, for the certificate; may be repeated. Without it:
    /// the host name. `localhost` and the address to listen on are always among them.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Show this certificate (PEM, with those above it) in place of one of the library's own
    /// authority.
    #[arg(
        long,
        value_name = "FILE",
        requires = "private_key",
        conflicts_with = "names"
    )]
    certificate: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    private_key: Option<PathBuf>,
    /// Speak HTTP without TLS; on loopback addresses only, for a proxy on this computer.
    #[arg(long, conflicts_with_all = ["names", "certificate"])]
    plain_http: bool,
    /// Log as JSON, one object per line.
    #[arg(long)]
    log_json: bool,
}

impl ServeArguments {
    pub(crate) fn run(&self, access: &LibraryAccess) -> Result<Verdict> {
        start_log(self.log_json);
        let library = LocalLibrary::open_with_key(&self.library, access)?;
        let options = ServerOptions {
            transport: self.transport(&library)?,
            access: Access::Tokens(library.clone()),
            limits: Limits::default(),
        };
        let server = Server::bind(Arc::new(library), self.listen, options)?;
        let url = server.url();
        tracing::info!(url, library = %self.library, "serving");
        // For whoever started this program with port 0.
        print_line(&url);
        server.run()?;
        tracing::info!("stopped");
        Ok(Verdict::Done)
    }

    fn transport(&self, library: &LocalLibrary) -> Result<Transport> {
        if self.plain_http {
            return Ok(Transport::Plain);
        }
        let identity = match (&self.certificate, &self.private_key) {
            (Some(certificate), Some(private_key)) => {
                TlsIdentity::from_files(certificate, private_key)?
            }
            _ => {
                let authority = Authority::of(library)?;
                tracing::info!(authority = %authority.fingerprint(), "SHA-256 of the authority");
                TlsIdentity::issued(authority, self.certificate_names())?
            }
        };
        Ok(Transport::Tls(Box::new(identity)))
    }

    fn certificate_names(&self) -> Vec<String> {
        let mut names = self.names.clone();
        if names.is_empty() {
            let system = rustix::system::uname();
            names.push(system.nodename().to_string_lossy().into_owned());
        }
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let address = self.listen.ip();
        if !address.is_unspecified() {
            names.push(address.to_string());
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn start_log(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(filter);
    if json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}
