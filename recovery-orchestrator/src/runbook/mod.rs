// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runbooks: YAML files that a person can follow and the program can run.
//!
//! Reading ([`load()`]) checks what can be checked without a library: keys, names that something
//! else in the file must have, addresses, expressions. What needs the library and this computer
//! is [`crate::capacity`] and [`crate::drill`].

mod load;
mod render;
mod schema;
mod template;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::check::Pattern;
use crate::network::Subnet;
use crate::platform::ProfileName;

pub use load::{load, parse};
pub use render::render;
pub use schema::schema;
pub use template::template;
pub use values::{bytes_text, duration_text, parse_bytes, parse_duration};

/// A runbook with where it came from.
#[derive(Debug)]
pub struct LoadedRunbook {
    /// The runbook.
    pub runbook: Runbook,
    /// The file.
    pub file: PathBuf,
    /// Its content, as it was read.
    pub text: String,
}

impl LoadedRunbook {
    /// BLAKE3 of the file.
    #[must_use]
    pub fn hash(&self) -> String {
        blake3::hash(self.text.as_bytes()).to_hex().to_string()
    }
}

/// How one or several servers are recovered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    /// The version of this format: 1.
    #[schemars(schema_with = "schema::version")]
    pub version: Spanned<u32>,
    /// A short name: letters, digits, `.`, `_`, `-`.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// What it is called in documents.
    pub title: Option<String>,
    /// What recovery has to reach.
    #[serde(default)]
    pub objectives: Objectives,
    /// Where the machines run.
    #[serde(default)]
    pub platform: PlatformName,
    /// Networks, by name.
    #[serde(default)]
    pub networks: BTreeMap<String, Network>,
    /// Servers, by their names in the library.
    pub servers: BTreeMap<String, Server>,
    /// What happens, in order; left out: all servers are started at once.
    #[serde(default)]
    pub plan: Vec<Step>,
    /// When it is to be rehearsed, as in crontab(5). Kept and shown; nothing starts it yet.
    #[schemars(with = "Option<String>")]
    pub schedule: Option<Spanned<String>>,
}

/// What recovery has to reach.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    /// How old the data may be at most (recovery point objective), as `24h`.
    #[serde(default, deserialize_with = "values::optional_duration")]
    #[schemars(schema_with = "schema::duration")]
    pub rpo: Option<Duration>,
    /// How long recovery may take at most (recovery time objective), as `30m`.
    #[serde(default, deserialize_with = "values::optional_duration")]
    #[schemars(schema_with = "schema::duration")]
    pub rto: Option<Duration>,
}

/// Where machines run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlatformName {
    /// QEMU on this computer.
    #[default]
    Qemu,
}

/// A network.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// How it is connected to others.
    pub mode: NetworkMode,
    /// Its addresses, as `10.20.0.0/24`; left out: taken from the guest's own address.
    #[serde(default, deserialize_with = "values::optional_parsed")]
    #[schemars(with = "Option<String>")]
    pub subnet: Option<Subnet>,
}

/// How a network is connected to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Not at all: QEMU user networking with `restrict=on`, one for each card, and forwards from
    /// 127.0.0.1 for the checks.
    Isolated,
}

/// A server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Which of its images: `latest`, an image's id, or `{ before: TIME }`.
    #[serde(default)]
    #[schemars(schema_with = "schema::image")]
    pub image: ImageChoice,
    /// What the machine is made of; left out: as the server was.
    #[serde(default)]
    pub hardware: Hardware,
    /// The network of each card, in the guest's order; cards beyond the list get one of their own.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub network: Vec<Spanned<String>>,
    /// Documented departures from the automatic plan, for people; nothing acts on them.
    #[serde(default)]
    pub adjustments: Vec<String>,
    /// What must be true before it counts as recovered.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// Which image of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ImageChoice {
    /// The last one.
    #[default]
    Latest,
    /// This one, by its id.
    Id(image_library::ImageId),
    /// The last one taken before a time.
    Before(Timestamp),
}

/// What a machine is made of.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Virtual processors.
    #[schemars(range(min = 1, max = 255))]
    pub cpus: Option<u32>,
    /// Memory, as `2GiB`.
    #[serde(default, deserialize_with = "values::optional_bytes")]
    #[schemars(schema_with = "schema::bytes")]
    pub memory: Option<u64>,
    /// `auto`, or `virtio`, `virtio-scsi`, `sata`, `ide`, `scsi-lsi`, optionally with a network
    /// card: `sata/e1000`.
    #[serde(default)]
    #[schemars(schema_with = "schema::profile")]
    pub profile: ProfileChoice,
}

/// Which virtual hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProfileChoice {
    /// What the guest has drivers for, the best first.
    #[default]
    Auto,
    /// This first; the others if it does not boot.
    First(ProfileName),
}

/// A question to a started server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Something appears on its serial console.
    Console(ConsoleCheck),
    /// Something accepts connections on a TCP port.
    Tcp(TcpCheck),
    /// A page is answered over HTTP.
    Http(HttpCheck),
}

/// Something appears on the serial console.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleCheck {
    /// A text, or `/a regular expression/`.
    #[serde(deserialize_with = "values::parsed")]
    #[schemars(with = "String")]
    pub expect: Pattern,
    /// How long it may take from the start of the processors, as `5m`.
    #[serde(
        default = "values::default_within",
        deserialize_with = "values::duration"
    )]
    #[schemars(schema_with = "schema::duration")]
    pub within: Duration,
}

/// Something accepts connections.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    /// The port.
    #[serde(deserialize_with = "values::port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// How long it may take from the start of the processors.
    #[serde(
        default = "values::default_within",
        deserialize_with = "values::duration"
    )]
    #[schemars(schema_with = "schema::duration")]
    pub within: Duration,
}

/// A page is answered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The port.
    #[serde(default = "values::http_port", deserialize_with = "values::port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The path, with its `/`.
    #[serde(default = "values::root_path", deserialize_with = "values::path")]
    pub path: String,
    /// The status of the answer.
    #[serde(default = "values::status_ok")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// A text that must be in the answer.
    pub contains: Option<String>,
    /// How long it may take from the start of the processors.
    #[serde(
        default = "values::default_within",
        deserialize_with = "values::duration"
    )]
    #[schemars(schema_with = "schema::duration")]
    pub within: Duration,
}

impl Check {
    /// How long it may take.
    #[must_use]
    pub const fn within(&self) -> Duration {
        match self {
            Self::Console(check) => check.within,
            Self::Tcp(check) => check.within,
            Self::Http(check) => check.within,
        }
    }

    /// The port of the guest that it needs.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Console(_) => None,
            Self::Tcp(check) => Some(check.port),
            Self::Http(check) => Some(check.port),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console(check) => write!(f, "console shows {}", check.expect),
            Self::Tcp(check) => write!(f, "tcp port {} accepts", check.port),
            Self::Http(HttpCheck {
                port,
                path,
                status,
                contains,
                ..
            }) => {
                write!(f, "http port {port} {path} answers {status}")?;
                match contains {
                    Some(text) => write!(f, " with {text:?}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// One step of the plan.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Starts servers together, and waits for their checks.
    #[schemars(with = "Vec<String>")]
    Start(Vec<Spanned<String>>),
    /// A person confirms something; skipped in drills, and listed in their reports.
    Confirm(Confirmation),
}

/// What a person confirms.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// What.
    pub text: String,
}

impl Runbook {
    /// What it is called in documents.
    #[must_use]
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name.value)
    }

    /// The names of the servers, wave by wave.
    #[must_use]
    pub fn waves(&self) -> Vec<Vec<&str>> {
        let starts = self.plan.iter().filter_map(|step| match step {
            Step::Start(servers) => {
                Some(servers.iter().map(|server| server.value.as_str()).collect())
            }
            Step::Confirm(_) => None,
        });
        let waves: Vec<Vec<&str>> = starts.collect();
        if waves.is_empty() {
            return vec![self.servers.keys().map(String::as_str).collect()];
        }
        waves
    }

    /// What people confirm, in order.
    #[must_use]
    pub fn confirmations(&self) -> Vec<&str> {
        let texts = self.plan.iter().filter_map(|step| match step {
            Step::Start(_) => None,
            Step::Confirm(confirmation) => Some(confirmation.text.as_str()),
        });
        texts.collect()
    }

    /// The subnet of each card of a server, as far as the runbook says.
    #[must_use]
    pub fn subnets(&self, server: &Server) -> Vec<Option<Subnet>> {
        let subnet = |name: &Spanned<String>| self.networks.get(&name.value)?.subnet;
        server.network.iter().map(subnet).collect()
    }
}
