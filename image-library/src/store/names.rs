// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of a library's objects (FORMAT.md, section 1), made and read back.

use crate::id::ImageId;
use crate::pack::PackId;
use crate::token::TokenId;
use crate::wanted::Place;

/// What the library is.
pub(crate) const CONFIG: &str = "library.json";
/// Its secret.
pub(crate) const KEY: &str = "keys/library.key";
/// All packs are below.
pub(crate) const PACKS: &str = "packs/";
/// All images are below.
pub(crate) const IMAGES: &str = "images/";

/// What prunes publish is below.
pub(crate) const PRUNE: &str = "prune/";
/// Below which generation images count only when it names them.
pub(crate) const FLOOR: &str = "prune/floor";
/// Images that were deleted are below.
pub(crate) const TRASH: &str = "trash/";
/// The certificate and the private key of the library's authority.
#[cfg(feature = "server")]
pub(crate) const AUTHORITY: &str = "tls/authority";
/// The tokens of its servers' clients are below.
pub(crate) const TOKENS: &str = "tokens/";
/// What was done, by whom, is below.
pub(crate) const AUDIT: &str = "audit/";

/// What is known of damage is below.
pub(crate) const WANTED: &str = "wanted/";

/// The name of a record of damage with this content.
pub(crate) fn wanted(place: Place, content: &[u8]) -> String {
    let hash = blake3::hash(content).to_hex();
    format!("{WANTED}{place}.{}", &hash[..32])
}

/// Of which place a record of damage is, by its name.
pub(crate) fn parse_wanted(name: &str) -> Option<Place> {
    let (place, hash) = name.strip_prefix(WANTED)?.split_once('.')?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if hash.len() != 32 || !hash.bytes().all(is_digit) {
        return None;
    }
    match place {
        "none" => Some(Place::Nowhere),
        pack => PackId::from_hex(pack).map(Place::Pack),
    }
}

/// The name of a token's record.
pub(crate) fn token(id: &TokenId) -> String {
    format!("{TOKENS}{id}")
}

/// The token of a name.
pub(crate) fn parse_token(name: &str) -> Option<TokenId> {
    name.strip_prefix(TOKENS)?.parse().ok()
}

/// Who prunes a library that several machines share.
pub(crate) const PRUNE_LEASE: &str = "leases/prune";

/// The name of an object by which a store is tried.
pub(crate) fn probe(unique: &str) -> String {
    format!("leases/probe-{unique}")
}

/// The name of a list of condemned packs; sorted by name they are sorted by generation.
pub(crate) fn condemned(generation: u64) -> String {
    format!("{PRUNE}condemned-{generation:020}")
}

/// The generation of a list of condemned packs.
pub(crate) fn parse_condemned(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PRUNE)?.strip_prefix("condemned-")?;
    let generation = digits.parse().ok()?;
    (condemned(generation) == name).then_some(generation)
}

/// The name of a decision which packs are removed.
pub(crate) fn removing(unique: &str) -> String {
    format!("{PRUNE}removing-{unique}")
}

/// Whether a name is that of such a decision.
pub(crate) fn is_removing(name: &str) -> bool {
    name.starts_with(&removing(""))
}

/// The name of a deleted image.
pub(crate) fn trash(id: ImageId) -> String {
    format!("{TRASH}{id}.image")
}

/// The deleted image of a name.
pub(crate) fn parse_trash(name: &str) -> Option<ImageId> {
    let stem = name.strip_prefix(TRASH)?.strip_suffix(".image")?;
    let id = stem.parse::<ImageId>().ok()?;
    (trash(id) == name).then_some(id)
}

/// The name of a pack.
pub(crate) fn pack(id: &PackId) -> String {
    let name = id.to_string();
    format!("{PACKS}{}/{name}.pack", &name[..2])
}

/// The pack of a name. A pack in a wrong directory has none: it would not be found by its id.
pub(crate) fn parse_pack(name: &str) -> Option<PackId> {
    let (_, file) = name.strip_prefix(PACKS)?.split_once('/')?;
    let id = PackId::from_hex(file.strip_suffix(".pack")?)?;
    (pack(&id) == name).then_some(id)
}

/// The name of an image.
pub(crate) fn image(id: ImageId) -> String {
    format!("{IMAGES}{id}.image")
}

/// The image of a name; a name in another spelling (upper case, no dashes) is not ours.
pub(crate) fn parse_image(name: &str) -> Option<ImageId> {
    let stem = name.strip_prefix(IMAGES)?.strip_suffix(".image")?;
    let id = stem.parse::<ImageId>().ok()?;
    (image(id) == name).then_some(id)
}

/// What the names of an image's side files start with.
pub(crate) fn side_files(id: ImageId) -> String {
    format!("side/{id}/")
}

/// The name of a side file.
pub(crate) fn side_file(id: ImageId, name: &str) -> String {
    format!("side/{id}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_only_as_it_is_made() {
        let id = PackId::from_bytes([0xab; 32]);
        let name = pack(&id);
        assert_eq!(parse_pack(&name), Some(id));
        assert_eq!(parse_pack(&name.to_uppercase()), None);
        assert_eq!(parse_pack(&name.replace("packs/ab/", "packs/aa/")), None);
        assert_eq!(parse_pack(&name.replace("packs/ab/", "packs/")), None);

        let uuid = "0193a6c0-0000-7000-8000-000000000001";
        let id: ImageId = uuid.parse().expect("is a UUID");
        assert_eq!(parse_image(&image(id)), Some(id));
        assert_eq!(parse_image(&image(id).replace('-', "")), None);
        assert_eq!(parse_image("images/x.image"), None);

        for place in [Place::Pack(PackId::from_bytes([0xab; 32])), Place::Nowhere] {
            let name = wanted(place, b"content");
            assert_eq!(parse_wanted(&name), Some(place));
            assert_eq!(parse_wanted(&name.to_uppercase()), None);
            assert_eq!(parse_wanted(&name[..name.len() - 1]), None);
        }
        assert_eq!(parse_wanted("wanted/none"), None);
    }
}
