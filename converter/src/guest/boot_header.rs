// SPDX-License-Identifier: MIT OR Apache-2.0
//! The header of a Linux kernel for x86: what its image says of itself.
//!
//! | at | what | since version |
//! |---|---|---|
//! | 0x1f1 | how many sectors of 512 bytes its 16-bit code has behind the first, 8 bits; 0 means 4 | |
//! | 0x202 | the magic, `HdrS` | 2.00 |
//! | 0x206 | the version of the boot protocol, 16 bits | 2.00 |
//! | 0x20e | where its release stands as text, less 0x200; 16 bits | 2.00 |
//! | 0x236 | flags, of which the first says 64 bits; 16 bits | 2.12 |
//! | 0x248, 0x24c | where the packed kernel is in the code behind these sectors, and its length; 32 bits | 2.08 |
//! | 0x260 | the memory that it needs until it knows its own; 32 bits | 2.10 |
//!
//! Source: `Documentation/arch/x86/boot.rst` of Linux, "The Real-Mode Kernel Header".

const SETUP_SECTORS_AT: usize = 0x1f1;
const SETUP_SECTORS_OF_OLD: u8 = 4;
const SECTOR_BYTES: usize = 512;
const MAGIC: &[u8] = b"HdrS";
const MAGIC_AT: usize = 0x202;
const PROTOCOL_AT: usize = 0x206;
const RELEASE_AT: usize = 0x20e;
const RELEASE_BASE: usize = 0x200;
const FLAGS_AT: usize = 0x236;
const FLAGS_SINCE: u16 = 0x020c;
const FLAG_64_BIT: u8 = 1;
const PAYLOAD_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
const PAYLOAD_SINCE: u16 = 0x0208;
const INIT_SIZE_AT: usize = 0x260;
const INIT_SIZE_SINCE: u16 = 0x020a;
const RELEASE_LENGTH_MAX: usize = 64;

/// A kernel's image, or the beginning of one.
#[derive(Debug, Clone, Copy)]
pub struct BootHeader<'a> {
    image: &'a [u8],
}

impl<'a> BootHeader<'a> {
    /// `None` where there is no such header.
    #[must_use]
    pub fn read(image: &'a [u8]) -> Option<Self> {
        let header = image.get(MAGIC_AT..)?;
        header.starts_with(MAGIC).then_some(Self { image })
    }

    /// What `uname -r` prints: letters, digits, `.-_+~`.
    #[must_use]
    pub fn release(&self) -> Option<&'a str> {
        let start = usize::from(u16::from_le_bytes(self.at(RELEASE_AT)?)) + RELEASE_BASE;
        let text = self.image.get(start..)?.split(|byte| *byte == 0).next()?;
        let release = text.split(|byte| *byte == b' ').next()?;
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_+~".contains(byte);
        let is_release =
            (1..=RELEASE_LENGTH_MAX).contains(&release.len()) && release.iter().all(is_plain);
        str::from_utf8(release).ok().filter(|_| is_release)
    }

    /// Whether it is for 64 bits; `None` where it is too old to say.
    #[must_use]
    pub fn is_64_bit(&self) -> Option<bool> {
        let [flags] = self.since(FLAGS_SINCE, FLAGS_AT)?;
        Some(flags & FLAG_64_BIT != 0)
    }

    /// How much memory it needs until it knows its own, in bytes; `None` where it is too old to say.
    #[must_use]
    pub fn init_size_bytes(&self) -> Option<u32> {
        self.since(INIT_SIZE_SINCE, INIT_SIZE_AT)
            .map(u32::from_le_bytes)
    }

    /// The kernel proper, packed; `None` where it is too old to say, or is not all there.
    #[must_use]
    pub fn payload(&self) -> Option<&'a [u8]> {
        let [sectors] = match self.at(SETUP_SECTORS_AT)? {
            [0] => [SETUP_SECTORS_OF_OLD],
            sectors => sectors,
        };
        let word = |at| Some(u32::from_le_bytes(self.since(PAYLOAD_SINCE, at)?));
        let start = usize::try_from(word(PAYLOAD_AT)?).ok()?;
        let length = usize::try_from(word(PAYLOAD_LENGTH_AT)?).ok()?;
        let code = self
            .image
            .get((usize::from(sectors) + 1) * SECTOR_BYTES..)?;
        code.get(start..)?.get(..length)
    }

    fn since<const N: usize>(&self, version: u16, at: usize) -> Option<[u8; N]> {
        let protocol = u16::from_le_bytes(self.at(PROTOCOL_AT)?);
        self.at(at).filter(|_| protocol >= version)
    }

    fn at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.image.get(at..)?.first_chunk().copied()
    }
}

/// The first two numbers of a kernel's version or release; 0 for one that is missing.
#[must_use]
pub fn major_minor(version: &str) -> (u64, u64) {
    let mut numbers = version.split(['.', '-']).map(|part| {
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part.get(..end).and_then(|digits| digits.parse().ok())
    });
    let mut next = || numbers.next().flatten().unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(protocol: u16) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&protocol.to_le_bytes());
        image
    }

    #[test]
    fn only_what_has_the_magic_has_a_header() {
        let bytes = image(0);
        for length in 0..bytes.len() {
            let is_kernel = BootHeader::read(&bytes[..length]).is_some();
            assert_eq!(is_kernel, length >= 0x206, "{length}");
        }
        for place in 0x202..0x206 {
            let mut other = bytes.clone();
            other[place] ^= 1;
            assert!(BootHeader::read(&other).is_none(), "{place}");
        }
        assert!(BootHeader::read(b"\x7fELF").is_none());
    }

    #[test]
    fn it_tells_the_release() {
        let release = |image: &[u8]| {
            let header = BootHeader::read(image).expect("it has the magic");
            header.release().map(str::to_owned)
        };
        let mut image = image(0x200);
        image[0x20e..0x210].copy_from_slice(&[0x80, 0x00]);
        image[0x280..0x2a0].copy_from_slice(b"6.9.1-arch1-1 (linux@archlinux)\0");
        assert_eq!(release(&image).as_deref(), Some("6.9.1-arch1-1"));
        image[0x280] = b'/';
        assert_eq!(release(&image), None);
        image[0x20e..0x210].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(release(&image), None);
    }

    #[test]
    fn it_tells_where_the_kernel_proper_is() {
        let mut modern = image(0x20f);
        modern[0x1f1] = 1;
        modern[0x248] = 3;
        modern[0x24c] = 4;
        modern.extend_from_slice(b"...packed");
        let payload = |image: &[u8]| {
            let header = BootHeader::read(image).expect("it has the magic");
            header.payload().map(<[u8]>::to_vec)
        };
        assert_eq!(payload(&modern).as_deref(), Some(b"pack".as_slice()));
        assert_eq!(payload(&modern[..0x406]), None);
        modern[0x24f] = 0xff;
        assert_eq!(payload(&modern), None);
        modern[0x24f] = 0;
        modern[0x206..0x208].copy_from_slice(&0x207_u16.to_le_bytes());
        assert_eq!(payload(&modern), None);
    }

    #[test]
    fn no_number_of_sectors_means_four() {
        let mut old = image(0x208);
        old.resize(5 * 512, 0);
        old[0x24c] = 4;
        old.extend_from_slice(b"pack");
        let header = BootHeader::read(&old).expect("it has the magic");
        assert_eq!(header.payload(), Some(b"pack".as_slice()));
    }

    #[test]
    fn it_tells_what_its_version_knows() {
        let told = |image: &[u8]| {
            let header = BootHeader::read(image).expect("it has the magic");
            (header.init_size_bytes(), header.is_64_bit())
        };
        let mut modern = image(0x20f);
        modern[0x260..0x264].copy_from_slice(&(60_u32 << 20).to_le_bytes());
        assert_eq!(told(&modern), (Some(60 << 20), Some(false)));
        modern[0x236] = 1;
        assert_eq!(told(&modern), (Some(60 << 20), Some(true)));
        assert_eq!(told(&modern[..0x263]), (None, Some(true)));
        assert_eq!(told(&image(0x20b)), (Some(0), None));
        assert_eq!(told(&image(0x209)), (None, None));
    }

    #[test]
    fn releases_are_read_from_versions_of_every_distribution() {
        for (version, expected) in [
            ("6.1.0-28-amd64", (6, 1)),
            ("3.10.0-1160.el7.x86_64", (3, 10)),
            ("2.6.32-754.el6.x86_64", (2, 6)),
            ("3.0-default", (3, 0)),
            ("5.14rc1", (5, 14)),
            ("", (0, 0)),
        ] {
            assert_eq!(major_minor(version), expected, "{version}");
        }
    }
}
