// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/lvm/lvm.conf`: which devices LVM looks at.
//!
//! ```text
//! devices {
//!     filter = [ "a|^/dev/sda.*|", "r|.*|" ]    # accept, reject; the first match counts
//!     use_devicesfile = 1
//! }
//! devices/filter = "a|.*|"                      # the same in one line
//! ```
//! Facts from lvm.conf(5) and lvm(8). Editing keeps every byte of what is not edited. Limits: 64
//! sections deep; what is deeper, or not closed, ends the reading.

use std::ops::Range;

use regex::RegexBuilder;

const DEPTH_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 1 << 16;
/// What names a disk of a server in a filter of LVM.
const HARDWARE: [&str; 8] = [
    "/sd", "/hd", "nvme", "cciss", "by-id", "by-path", "mpath", "emcpower",
];
/// How a filter rejects all that it did not accept.
const REJECTS_ALL: [&str; 4] = ["r|.*|", "r/.*/", "r#.*#", "r\".*\""];

/// The configuration of LVM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LvmConf {
    text: String,
    settings: Vec<Setting>,
    /// Sections, and where each begins behind its brace.
    sections: Vec<(String, usize)>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    /// `devices/filter`.
    path: String,
    /// Where its value stands.
    range: Range<usize>,
    /// Its strings, where it is one or a list of them: each with where it stands, quotes included.
    strings: Vec<(String, Range<usize>)>,
}

impl LvmConf {
    /// Reads a file.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut reader = Reader {
            text,
            position: 0,
            sections: Vec::new(),
            settings: Vec::new(),
        };
        reader.read();
        Self {
            text: text.to_owned(),
            settings: reader.settings,
            sections: reader.sections,
        }
    }

    /// The file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The strings of a setting; `None` where it is not set.
    #[must_use]
    pub fn strings(&self, path: &str) -> Option<Vec<&str>> {
        let setting = self.setting(path)?;
        let strings = setting.strings.iter().map(|(text, _)| text.as_str());
        Some(strings.collect())
    }

    /// A setting's value as it is written.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<&str> {
        self.text.get(self.setting(path)?.range.clone())
    }

    fn setting(&self, path: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.path == path)
    }

    /// Puts a string before that with this number; false where the setting is no list that has it.
    pub fn insert_string(&mut self, path: &str, place: usize, text: &str) -> bool {
        let Some(setting) = self.setting(path) else {
            return false;
        };
        let Some((_, range)) = setting.strings.get(place) else {
            return false;
        };
        let is_list = self.text.get(setting.range.clone()).unwrap_or_default();
        let (range, is_list) = (range.clone(), is_list.starts_with('['));
        let Some(before) = self.text.get(range.clone()) else {
            return false;
        };
        let new = match is_list {
            true => format!("\"{text}\", {before}"),
            false => format!("[ \"{text}\", {before} ]"),
        };
        self.text.replace_range(range, &new);
        *self = Self::parse(&self.text);
        true
    }

    /// Sets a number in a section, which is made where it is missing.
    pub fn set_number(&mut self, section: &str, key: &str, value: u32) {
        let path = format!("{section}/{key}");
        if let Some(setting) = self.setting(&path) {
            let range = setting.range.clone();
            self.text.replace_range(range, &value.to_string());
        } else if let Some((_, start)) = self.sections.iter().find(|(name, _)| name == section) {
            let start = *start;
            self.text.insert_str(start, &format!("\n\t{key} = {value}"));
        } else {
            if !self.text.is_empty() && !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            let new = format!("{section} {{\n\t{key} = {value}\n}}\n");
            self.text.push_str(&new);
        }
        *self = Self::parse(&self.text);
    }
}

/// A configuration by which LVM looks at all disks, not only at those of its list of devices.
#[must_use]
pub fn without_devices_file(text: &str) -> String {
    let mut conf = LvmConf::parse(text);
    if conf.value("devices/use_devicesfile") != Some("0") {
        conf.set_number("devices", "use_devicesfile", 0);
    }
    // Behind what is not closed nothing is read, by LVM neither.
    match conf.value("devices/use_devicesfile") {
        Some("0") => conf.text().to_owned(),
        _ => text.to_owned(),
    }
}

/// Filters that reject all but disks of the server become comments; a filter may go over lines.
#[must_use]
pub fn without_hardware_filters(text: &str) -> String {
    let mut after = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line_end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let line = rest[..line_end].trim_start();
        let is_filter = line.starts_with("filter") || line.starts_with("global_filter");
        let end = match rest.find(']') {
            Some(close) if is_filter && close >= line_end => {
                let tail = &rest[close..];
                close + tail.find('\n').map_or(tail.len(), |end| end + 1)
            }
            _ => line_end,
        };
        let (setting, tail) = rest.split_at(end);
        let rejects_all = REJECTS_ALL.iter().any(|pattern| setting.contains(pattern));
        let accepts_hardware = HARDWARE.iter().any(|name| setting.contains(name));
        if is_filter && rejects_all && accepts_hardware {
            for line in setting.split_inclusive('\n') {
                after.push('#');
                after.push_str(line);
            }
        } else {
            after.push_str(setting);
        }
        rest = tail;
    }
    after
}

/// What a filter says of a device's name: the number of the first pattern that matches, and whether
/// it accepts. `None`: no pattern matches, which is as good as accepted.
#[must_use]
pub fn first_match(patterns: &[&str], device: &str) -> Option<(usize, bool)> {
    let matches = |pattern: &str| expression(pattern).is_some_and(|e| e.is_match(device));
    let place = patterns.iter().position(|pattern| matches(pattern))?;
    Some((place, patterns.get(place)?.starts_with('a')))
}

/// `a|expression|`, with any character for the bars.
fn expression(pattern: &str) -> Option<regex::Regex> {
    let mut characters = pattern.chars();
    characters.next().filter(|verb| matches!(verb, 'a' | 'r'))?;
    let end = match characters.next()? {
        '(' => ')',
        '[' => ']',
        '{' => '}',
        other => other,
    };
    let inner = characters.as_str().strip_suffix(end)?;
    // What is no expression for us matches nothing.
    RegexBuilder::new(inner)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .ok()
}

#[derive(Debug)]
struct Reader<'a> {
    text: &'a str,
    position: usize,
    sections: Vec<(String, usize)>,
    settings: Vec<Setting>,
}

impl Reader<'_> {
    fn read(&mut self) {
        let mut open: Vec<String> = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return,
                Some(b'}') => {
                    open.pop();
                    self.position += 1;
                }
                Some(_) => {
                    let Some(name) = self.name() else { return };
                    self.skip_blanks();
                    match self.peek() {
                        Some(b'{') if open.len() < DEPTH_MAX => {
                            self.position += 1;
                            open.push(name);
                            self.sections.push((open.join("/"), self.position));
                        }
                        Some(b'=') => {
                            self.position += 1;
                            let prefix: String =
                                open.iter().map(|section| format!("{section}/")).collect();
                            self.setting(format!("{prefix}{name}"));
                        }
                        _ => return,
                    }
                }
            }
        }
    }

    fn setting(&mut self, path: String) {
        self.skip_blanks();
        let start = self.position;
        let mut strings = Vec::new();
        match self.peek() {
            Some(b'[') => {
                self.position += 1;
                loop {
                    self.skip_blanks();
                    match self.peek() {
                        Some(b'"') => strings.extend(self.string()),
                        None => break,
                        Some(b']') => {
                            self.position += 1;
                            break;
                        }
                        Some(_) => self.position += 1,
                    }
                }
            }
            Some(b'"') => strings.extend(self.string()),
            _ => {
                while self
                    .peek()
                    .is_some_and(|byte| !byte.is_ascii_whitespace() && !b"#}".contains(&byte))
                {
                    self.position += 1;
                }
            }
        }
        self.settings.push(Setting {
            path,
            range: start..self.position,
            strings,
        });
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'#' {
                while self.peek().is_some_and(|byte| byte != b'\n') {
                    self.position += 1;
                }
            } else if byte.is_ascii_whitespace() {
                self.position += 1;
            } else {
                return;
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let start = self.position;
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/.+".contains(&byte);
        while self.peek().is_some_and(is_part) {
            self.position += 1;
        }
        let name = self.text.get(start..self.position)?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// A string in quotes, with `\"` and `\\` in it.
    fn string(&mut self) -> Option<(String, Range<usize>)> {
        let start = self.position;
        self.position += 1;
        let mut text = Vec::new();
        while let Some(byte) = self.peek() {
            self.position += 1;
            match byte {
                b'"' => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    return Some((text, start..self.position));
                }
                b'\\' => {
                    if let Some(escaped) = self.peek() {
                        text.push(escaped);
                        self.position += 1;
                    }
                }
                other => text.push(other),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    const SAMPLE: &str = "# comment { \"\n\
        config { checks = 1 }\n\
        devices {\n\
        \tdir = \"/dev\"   # where\n\
        \tscan = [ \"/dev\" ]\n\
        \tfilter = [ \"a|^/dev/sda.*|\",\n\
        \t           \"r|.*|\" ]\n\
        \t# use_devicesfile = 1\n\
        \tsub {\n\t\tx=\"a\\\"b\"\n\t}\n\
        }\n\
        activation { monitoring = 1 }\n";

    #[test]
    fn settings_are_found_in_their_sections() {
        let conf = LvmConf::parse(SAMPLE);
        assert_eq!(
            conf.strings("devices/filter").unwrap(),
            ["a|^/dev/sda.*|", "r|.*|"]
        );
        assert_eq!(conf.value("devices/dir"), Some("\"/dev\""));
        assert_eq!(conf.value("activation/monitoring"), Some("1"));
        assert_eq!(conf.strings("devices/sub/x").unwrap(), ["a\"b"]);
        assert_eq!(conf.value("devices/use_devicesfile"), None);
    }

    #[test]
    fn a_pattern_is_put_before_another_and_the_rest_stays() {
        let mut conf = LvmConf::parse(SAMPLE);
        assert!(conf.insert_string("devices/filter", 1, "a|^/dev/vd|"));
        assert_eq!(
            conf.text(),
            SAMPLE.replace("\"r|.*|\"", "\"a|^/dev/vd|\", \"r|.*|\"")
        );
        let mut conf = LvmConf::parse("devices/filter = \"r|.*|\"\n");
        assert!(conf.insert_string("devices/filter", 0, "a|x|"));
        assert_eq!(conf.text(), "devices/filter = [ \"a|x|\", \"r|.*|\" ]\n");
    }

    #[test]
    fn a_number_is_set_in_its_section_wherever_that_is() {
        let mut conf = LvmConf::parse(SAMPLE);
        conf.set_number("devices", "use_devicesfile", 0);
        assert!(
            conf.text()
                .contains("devices {\n\tuse_devicesfile = 0\n\tdir")
        );
        conf.set_number("devices", "use_devicesfile", 1);
        assert_eq!(conf.value("devices/use_devicesfile"), Some("1"));
        let mut conf = LvmConf::default();
        conf.set_number("devices", "use_devicesfile", 0);
        assert_eq!(conf.text(), "devices {\n\tuse_devicesfile = 0\n}\n");
    }

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let patterns = ["r|/dev/cdrom|", "a/^/dev/sd[ab][0-9]*$/", "r(.*)"];
        assert_eq!(first_match(&patterns, "/dev/sda2"), Some((1, true)));
        assert_eq!(first_match(&patterns, "/dev/sdc2"), Some((2, false)));
        assert_eq!(first_match(&patterns[..2], "/dev/vda"), None);
        assert_eq!(first_match(&["a", "", "x|y|", "a|[|"], "/dev/vda"), None);
    }

    #[test]
    fn broken_text_is_read_as_far_as_it_goes() {
        for length in 0..SAMPLE.len() {
            let conf = LvmConf::parse(&SAMPLE[..length]);
            assert_eq!(conf.text(), &SAMPLE[..length]);
        }
        assert_eq!(LvmConf::parse(&"a{".repeat(10_000)).text().len(), 20_000);
        for end in ["\"x\\", "\"\\\u{e9}", "[\u{e9}", "[\"\\", "\u{e9}", ""] {
            let mut conf = LvmConf::parse(&format!("a {{ b = {end}"));
            conf.insert_string("a/b", 0, "x");
            conf.set_number("a", "b", 1);
            assert_eq!(conf.value("a/b"), Some("1"), "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_edited_without_harm(text in "[a-z{}=\\[\\]\",#\\\\ \n\u{e9}]{0,60}") {
            let mut conf = LvmConf::parse(&text);
            assert_eq!(conf.text(), text);
            conf.insert_string("a", 0, "x");
            conf.set_number("a", "b", 1);
        }
    }

    #[test]
    fn filters_that_know_only_old_disks_are_left_out() {
        let text = "devices {\n\tfilter = [ \"a|^/dev/sda2$|\",\n\t\t\"r|.*|\" ]\n\tdir = \"/dev\"\n\
            \tglobal_filter = [ \"a|.*|\" ]\n}\n";
        assert_eq!(
            without_hardware_filters(text),
            "devices {\n#\tfilter = [ \"a|^/dev/sda2$|\",\n#\t\t\"r|.*|\" ]\n\tdir = \"/dev\"\n\
             \tglobal_filter = [ \"a|.*|\" ]\n}\n"
        );
        let harmless = "filter = [ \"r|/dev/sdb.*|\" ]\nfilter = [ \"a|/dev/md.*|\", \"r|.*|\" ]";
        assert_eq!(without_hardware_filters(harmless), harmless);
    }

    #[test]
    fn a_list_of_devices_is_not_used() {
        let added = without_devices_file("");
        assert_eq!(added, "devices {\n\tuse_devicesfile = 0\n}\n");
        assert_eq!(without_devices_file(&added), added);
        assert_eq!(
            without_devices_file("devices {\n use_devicesfile = 1\n}"),
            "devices {\n use_devicesfile = 0\n}"
        );
        assert_eq!(without_devices_file("a \"b"), "a \"b");
    }
}
