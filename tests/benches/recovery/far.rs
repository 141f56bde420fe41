// SPDX-License-Identifier: MIT OR Apache-2.0
//! From where a library is read: a directory of this computer, or its server over TLS, near or far.

use std::time::Duration;

use e2e::{Distance, Library, Program, Running};

/// What a round trip to the library takes longer than on this computer.
pub(crate) const DELAYS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(50),
];

/// A way to a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Directory,
    Served(Duration),
}

impl Way {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Directory => "directory".to_owned(),
            Self::Served(delay) => format!("TLS, {} ms", delay.as_millis()),
        }
    }

    pub(crate) fn is_served(self) -> bool {
        self != Self::Directory
    }

    /// Makes the way; it is there until what it gives is dropped.
    pub(crate) fn open(self, library: &Library) -> Opened<'_> {
        let Self::Served(delay) = self else {
            return Opened {
                library,
                url: None,
                serving: None,
            };
        };
        let (serving, url) = library.serve();
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
        let relay = Distance::to(port.expect("the address ends in a port"), delay);
        Opened {
            library,
            url: Some(format!("https://127.0.0.1:{}", relay.port())),
            serving: Some(serving),
        }
    }
}

/// A way that is open.
pub(crate) struct Opened<'a> {
    library: &'a Library,
    url: Option<String>,
    serving: Option<Running>,
}

impl Opened<'_> {
    /// The process of the library's server, if there is one.
    pub(crate) fn server(&self) -> Option<u32> {
        self.serving.as_ref().map(Running::id)
    }

    pub(crate) fn relevo(&self) -> Program {
        match &self.url {
            Some(url) => self.library.relevo_with(url),
            None => self.library.relevo(),
        }
    }
}
