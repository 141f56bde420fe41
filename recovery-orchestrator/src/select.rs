// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which image a runbook means by `latest`, an id, or `{ before: TIME }`.

use image_library::{Image, ImageReader};

use crate::error::{Error, Result};
use crate::runbook::ImageChoice;

/// The image that a runbook chooses for a server.
pub fn for_runbook(reader: &dyn ImageReader, server: &str, choice: &ImageChoice) -> Result<Image> {
    let images = reader.images()?;
    let own: Vec<&Image> = images
        .iter()
        .filter(|image| image.server.as_str() == server)
        .collect();
    if own.is_empty() {
        return Err(missing(
            server.to_owned(),
            "the library has no image of this server",
            &images,
        ));
    }
    let (wanted, problem, fits): (_, _, Vec<&Image>) = match choice {
        ImageChoice::Latest => (server.to_owned(), "there is none", own),
        ImageChoice::Id(id) => (
            format!("{server}@{id}"),
            "the server has no image of this id",
            own.into_iter().filter(|image| image.id == *id).collect(),
        ),
        ImageChoice::Before(time) => (
            format!("{server} before {time}"),
            "all its images are younger",
            own.into_iter()
                .filter(|image| image.taken_at < *time)
                .collect(),
        ),
    };
    let last = fits
        .into_iter()
        .max_by_key(|image| (image.taken_at, image.id));
    last.cloned()
        .ok_or_else(|| missing(wanted, problem, &images))
}

fn missing(wanted: String, problem: &str, images: &[Image]) -> Error {
    let mut servers: Vec<&str> = images.iter().map(|image| image.server.as_str()).collect();
    servers.sort_unstable();
    servers.dedup();
    let hint = if servers.is_empty() {
        "the library is empty: `relevo image import --server NAME DISK` or `p2v-agent snapshot` \
         fill it"
            .to_owned()
    } else {
        format!(
            "`relevo image list` shows them; there are images of: {}",
            servers.join(", ")
        )
    };
    Error::NoImage {
        wanted,
        problem: problem.to_owned(),
        hint,
    }
}
