// SPDX-License-Identifier: MIT OR Apache-2.0
//! A plan as text: the verdict, every edit with its reasons and a diff, the virtual machine.

use std::fmt;

use similar::TextDiff;

use crate::inspect::InnerFile;
use crate::inspect::print::level;
use crate::plan::{Change, Edit, InitramfsAppend, Plan};
use crate::vm::VmDefinition;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verdict: {}", self.verdict)?;
        for finding in &self.findings {
            let (level, place) = (level(finding.level), &finding.place);
            writeln!(f, "{level} {}: {place}: {}", finding.code, finding.problem)?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "  remedy: {remedy}")?;
            }
        }
        for edit in &self.edits {
            write!(f, "\n{edit}")?;
            if let Some(small_vm) = &self.small_vm
                && small_vm.writes(edit.place.volume).is_some()
            {
                writeln!(f, "  written by: the small virtual machine")?;
            }
        }
        if let Some(small_vm) = &self.small_vm {
            write!(f, "\n{small_vm}")?;
        }
        write!(f, "\n{}", Machine(&self.vm))
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match &self.change {
            Change::Rewrite { .. } => "change",
            Change::Create { .. } => "create",
            Change::Copy { .. } => "copy to",
            Change::AppendToInitramfs(_) => "append to",
        };
        writeln!(f, "{verb} {} ({})", self.place, self.place.volume)?;
        for reason in &self.reasons {
            writeln!(f, "  because: {reason}")?;
        }
        match &self.change {
            Change::Rewrite { before, after, .. } => write_diff(f, before, after),
            Change::Create { content, mode } => {
                writeln!(f, "  mode {mode:04o}")?;
                write_content(f, content)
            }
            Change::Copy {
                from,
                hash,
                size_bytes,
                mode,
            } => {
                let hash = hash.get(..16).unwrap_or(hash);
                writeln!(
                    f,
                    "  mode {mode:04o}, {size_bytes} bytes of {from}, BLAKE3 {hash}"
                )
            }
            Change::AppendToInitramfs(append) => write_append(f, append),
        }
    }
}

fn write_diff(f: &mut fmt::Formatter<'_>, before: &str, after: &str) -> fmt::Result {
    let diff = TextDiff::from_lines(before, after);
    for hunk in diff.unified_diff().context_radius(1).iter_hunks() {
        for line in hunk.to_string().lines() {
            writeln!(f, "  {line}")?;
        }
    }
    Ok(())
}

fn write_content(f: &mut fmt::Formatter<'_>, content: &str) -> fmt::Result {
    for line in content.lines() {
        writeln!(f, "  +{line}")?;
    }
    Ok(())
}

fn write_append(f: &mut fmt::Formatter<'_>, append: &InitramfsAppend) -> fmt::Result {
    writeln!(f, "  one archive, compression: {}", append.compression)?;
    for module in &append.modules {
        writeln!(
            f,
            "  + module {:<24} {:>8} bytes  {}",
            module.name, module.size_bytes, module.path
        )?;
    }
    if !append.modules.is_empty() && append.module_directory.is_some() {
        writeln!(
            f,
            "  + modules.dep, modules.alias and the other indexes, over all modules inside"
        )?;
    }
    for InnerFile { path, text } in &append.files {
        writeln!(f, "  + file {path}")?;
        write_content(f, text)?;
    }
    Ok(())
}

struct Machine<'a>(&'a VmDefinition);

impl fmt::Display for Machine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vm = self.0;
        writeln!(
            f,
            "virtual machine {}: {}, {}, {} CPUs, {} MiB",
            vm.name,
            vm.firmware,
            vm.mainboard,
            vm.cpus,
            vm.memory_bytes >> 20
        )?;
        for disk in &vm.disks {
            let (index, size) = (disk.index, disk.size_bytes >> 20);
            writeln!(
                f,
                "  disk {index}: {size} MiB, sectors of {}",
                disk.sector_size.bytes()
            )?;
        }
        for nic in &vm.nics {
            let addresses = match nic.addresses.as_slice() {
                [] => "no static address".to_owned(),
                addresses => addresses.join(", "),
            };
            let gateway = nic.gateway.as_ref().map(|g| format!(", gateway {g}"));
            let gateway = gateway.unwrap_or_default();
            writeln!(
                f,
                "  network card {}: {}; {addresses}{gateway}",
                nic.name, nic.mac
            )?;
        }
        if let Some(direct) = &vm.direct_boot {
            writeln!(f, "  kernel from outside: {}", direct.kernel)?;
            if let Some(initramfs) = &direct.initramfs {
                writeln!(f, "  initramfs from outside: {initramfs}")?;
            }
            writeln!(f, "  command line: {}", direct.command_line)?;
        }
        for (place, profile) in vm.profiles.iter().enumerate() {
            let role = if place == 0 { "profile" } else { "fallback" };
            writeln!(
                f,
                "  {role}: disks on {}, network on {}",
                profile.disk, profile.nic
            )?;
        }
        Ok(())
    }
}
