// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes small kernel modules for tests: ELF objects that depmod and we can read.

/// What a module of a test holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModuleFixture {
    pub(crate) is_64_bit: bool,
    pub(crate) info: Vec<String>,
    pub(crate) exports: Vec<String>,
    pub(crate) needs: Vec<String>,
    /// Exports are said by `__crc_` symbols too, as with CONFIG_MODVERSIONS.
    pub(crate) has_checksums: bool,
}

impl ModuleFixture {
    pub(crate) fn new(info: &[&str], exports: &[&str], needs: &[&str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            is_64_bit: true,
            info: owned(info),
            exports: owned(exports),
            needs: owned(needs),
            has_checksums: false,
        }
    }

    /// The module's file, uncompressed.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (symbols, names) = self.symbol_table();
        let sections: [(&str, u64, Vec<u8>); 6] = [
            ("", 0, Vec::new()),
            (".modinfo", 1, zero_ended(&self.info)),
            ("__ksymtab_strings", 1, zero_ended(&self.exports)),
            (".symtab", 2, symbols),
            (".strtab", 3, names),
            (".shstrtab", 3, Vec::new()),
        ];
        let section_names: Vec<String> = sections
            .iter()
            .map(|(name, ..)| (*name).to_owned())
            .collect();
        let mut bytes = vec![0; if self.is_64_bit { 64 } else { 52 }];
        let mut headers = Vec::new();
        let mut name_offset = 0;
        for (name, kind, data) in &sections {
            let data = if *name == ".shstrtab" {
                zero_ended(&section_names)
            } else {
                data.clone()
            };
            headers.extend(self.section_header(name_offset, *kind, bytes.len(), data.len()));
            bytes.extend(data);
            name_offset += name.len() as u64 + 1;
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let header = self.file_header(bytes.len(), sections.len());
        bytes[..header.len()].copy_from_slice(&header);
        bytes.extend(headers);
        bytes
    }

    fn symbol_table(&self) -> (Vec<u8>, Vec<u8>) {
        let mut names = vec![0];
        let mut table = self.symbol(0, 0, 0);
        let checksums = self.exports.iter().filter(|_| self.has_checksums);
        let defined = checksums.map(|name| (format!("__crc_{name}"), 0xfff1));
        let undefined = self.needs.iter().map(|name| (name.clone(), 0));
        for (name, section) in defined.chain(undefined) {
            table.extend(self.symbol(names.len() as u64, 0x10, section));
            names.extend(name.bytes());
            names.push(0);
        }
        (table, names)
    }

    fn symbol(&self, name: u64, info: u8, section: u64) -> Vec<u8> {
        let mut bytes = little_endian(name, 4);
        if self.is_64_bit {
            bytes.extend([info, 0]);
            bytes.extend(little_endian(section, 2));
            bytes.extend([0; 16]);
        } else {
            bytes.extend([0; 8]);
            bytes.extend([info, 0]);
            bytes.extend(little_endian(section, 2));
        }
        bytes
    }

    fn section_header(&self, name: u64, kind: u64, offset: usize, length: usize) -> Vec<u8> {
        let word = if self.is_64_bit { 8 } else { 4 };
        let fields = [
            (name, 4),
            (kind, 4),
            (0, word),
            (0, word),
            (offset as u64, word),
            (length as u64, word),
            (0, 4),
            (0, 4),
            (1, word),
            (0, word),
        ];
        let fields = fields
            .iter()
            .flat_map(|(value, length)| little_endian(*value, *length));
        fields.collect()
    }

    fn file_header(&self, sections_offset: usize, section_count: usize) -> Vec<u8> {
        let (class, word, lengths, machine) = if self.is_64_bit {
            (2, 8, (64, 64), 62)
        } else {
            (1, 4, (52, 40), 3)
        };
        let mut bytes = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
        bytes.resize(16, 0);
        let fields = [
            (1, 2),
            (machine, 2),
            (1, 4),
            (0, word),
            (0, word),
            (sections_offset as u64, word),
            (0, 4),
            (lengths.0, 2),
            (0, 2),
            (0, 2),
            (lengths.1, 2),
            (section_count as u64, 2),
            (section_count as u64 - 1, 2),
        ];
        bytes.extend(
            fields
                .iter()
                .flat_map(|(value, length)| little_endian(*value, *length)),
        );
        bytes
    }
}

fn zero_ended(texts: &[String]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| [text.as_bytes(), &[0]].concat())
        .collect()
}

fn little_endian(value: u64, length: usize) -> Vec<u8> {
    value.to_le_bytes()[..length].to_vec()
}
