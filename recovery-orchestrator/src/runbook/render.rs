// SPDX-License-Identifier: MIT OR Apache-2.0
//! A runbook as the document for the binder: Markdown that a person can follow.

use std::fmt::Write as _;

use super::{
    Hardware, ImageChoice, LoadedRunbook, ProfileChoice, Runbook, Server, Step, bytes_text,
    duration_text,
};

/// The document.
#[must_use]
pub fn render(loaded: &LoadedRunbook) -> String {
    let runbook = &loaded.runbook;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_document(&mut text, loaded, runbook);
    text
}

fn write_document(
    text: &mut String,
    loaded: &LoadedRunbook,
    runbook: &Runbook,
) -> std::fmt::Result {
    writeln!(text, "# {}\n", runbook.title())?;
    writeln!(
        text,
        "Runbook `{}`, BLAKE3 `{}`.\n",
        runbook.name.value,
        &loaded.hash()[..16]
    )?;
    write_objectives(text, runbook)?;
    writeln!(text, "## Steps\n")?;
    write_steps(text, runbook)?;
    writeln!(text, "\n## Servers\n")?;
    for (name, server) in &runbook.servers {
        write_server(text, name, server)?;
    }
    write_networks(text, runbook)?;
    writeln!(text, "## Rehearsal\n")?;
    if let Some(schedule) = &runbook.schedule {
        writeln!(
            text,
            "Planned by the crontab line `{}` (not started by itself yet).\n",
            schedule.value
        )?;
    }
    writeln!(
        text,
        "`relevo drill run {}` starts the servers cut off from every network, asks",
        loaded.file.display()
    )?;
    writeln!(
        text,
        "the checks, writes a report, and removes everything it started."
    )
}

fn write_objectives(text: &mut String, runbook: &Runbook) -> std::fmt::Result {
    let objectives = &runbook.objectives;
    writeln!(text, "## Objectives\n")?;
    match objectives.rto {
        Some(rto) => writeln!(
            text,
            "- Recovered within {} of the decision (RTO).",
            duration_text(rto)
        )?,
        None => writeln!(text, "- No recovery time objective is set.")?,
    }
    match objectives.rpo {
        Some(rpo) => writeln!(
            text,
            "- With data at most {} old (RPO).\n",
            duration_text(rpo)
        ),
        None => writeln!(text, "- No recovery point objective is set.\n"),
    }
}

fn write_steps(text: &mut String, runbook: &Runbook) -> std::fmt::Result {
    if runbook.plan.is_empty() {
        let all: Vec<_> = runbook.servers.keys().map(String::as_str).collect();
        return writeln!(
            text,
            "1. [ ] Start {}, and wait for the checks.",
            all.join(", ")
        );
    }
    for (index, step) in runbook.plan.iter().enumerate() {
        let number = index + 1;
        match step {
            Step::Start(servers) => {
                let names: Vec<_> = servers.iter().map(|server| server.value.as_str()).collect();
                writeln!(
                    text,
                    "{number}. [ ] Start {}, and wait for the checks.",
                    names.join(", ")
                )?;
            }
            Step::Confirm(confirmation) => {
                writeln!(
                    text,
                    "{number}. [ ] **Confirm**: {}. Name, time: ____________",
                    confirmation.text
                )?;
            }
        }
    }
    Ok(())
}

fn write_server(text: &mut String, name: &str, server: &Server) -> std::fmt::Result {
    writeln!(text, "### {name}\n")?;
    writeln!(text, "- Image: {}", image_text(&server.image))?;
    writeln!(text, "- Hardware: {}", hardware_text(&server.hardware))?;
    if !server.network.is_empty() {
        let names: Vec<_> = server
            .network
            .iter()
            .map(|network| network.value.as_str())
            .collect();
        writeln!(
            text,
            "- Networks of its cards, in order: {}",
            names.join(", ")
        )?;
    }
    for adjustment in &server.adjustments {
        writeln!(text, "- Adjustment: {adjustment}")?;
    }
    if server.checks.is_empty() {
        writeln!(text, "- No check: that it works is for a person to see.")?;
    }
    for check in &server.checks {
        writeln!(
            text,
            "- [ ] {check}, within {}",
            duration_text(check.within())
        )?;
    }
    writeln!(text)
}

fn write_networks(text: &mut String, runbook: &Runbook) -> std::fmt::Result {
    if runbook.networks.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Networks\n")?;
    for (name, network) in &runbook.networks {
        match &network.subnet {
            Some(subnet) => writeln!(text, "- `{name}`: isolated, {subnet}")?,
            None => writeln!(
                text,
                "- `{name}`: isolated, the network of the guest's own address"
            )?,
        }
    }
    writeln!(text)
}

fn image_text(image: &ImageChoice) -> String {
    match image {
        ImageChoice::Latest => "the latest".to_owned(),
        ImageChoice::Id(id) => id.to_string(),
        ImageChoice::Before(time) => format!("the last one before {time}"),
    }
}

fn hardware_text(hardware: &Hardware) -> String {
    let cpus = hardware.cpus.map(|cpus| format!("{cpus} processors"));
    let memory = hardware
        .memory
        .map(|memory| format!("{} of memory", bytes_text(memory)));
    let profile = match hardware.profile {
        ProfileChoice::Auto => None,
        ProfileChoice::First(name) => Some(format!("profile {name}")),
    };
    let parts: Vec<_> = [cpus, memory, profile].into_iter().flatten().collect();
    if parts.is_empty() {
        "as the server was".to_owned()
    } else {
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runbook::{parse, template};

    #[test]
    fn the_template_as_a_document() {
        let text = template();
        let loaded = LoadedRunbook {
            runbook: parse(Path::new("shop.yaml"), &text).unwrap(),
            file: "shop.yaml".into(),
            text: "fixed, so that its hash is".to_owned(),
        };
        insta::assert_snapshot!(render(&loaded));
    }
}
