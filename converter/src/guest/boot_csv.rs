// SPDX-License-Identifier: MIT OR Apache-2.0
//! `BOOTX64.CSV` in a directory of the EFI system partition: what shim's fallback program makes
//! entries of the firmware from.
//!
//! ```text
//! shimx64.efi,Fedora,,This is the boot entry for Fedora     UTF-16, little endian, BOM or not
//! ```
//! shim, started as `\EFI\BOOT\BOOT*.EFI`, starts `fb*.efi` beside it where that is there; fallback
//! reads the file of every directory but `BOOT` and starts the first entry. Facts: shim.c
//! (`should_use_fallback`) and fallback.c of shim.

/// The programs that a file names, in its own directory.
#[must_use]
pub fn programs(file: &[u8]) -> Vec<String> {
    let units = file
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let text = String::from_utf16_lossy(&units);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.split(['\r', '\n']);
    let names = lines.filter_map(|line| line.split(',').next());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn the_first_field_of_a_line_is_a_program() {
        let text = "shimx64.efi,Fedora,,x\r\n\ngrubx64.efi,y,,\n";
        let expected = ["shimx64.efi", "grubx64.efi"];
        assert_eq!(programs(&utf16(text)), expected);
        assert_eq!(programs(&utf16(&format!("\u{feff}{text}"))), expected);
        assert_eq!(programs(&utf16(&format!("{text}\0z.efi,"))), expected);
        assert_eq!(programs(b"\xff\xfe\x00"), [""; 0]);
        assert_eq!(programs(b""), [""; 0]);
    }
}
