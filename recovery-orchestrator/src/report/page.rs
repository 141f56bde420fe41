// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page of a report: one file, no script, nothing from elsewhere; reads well on paper too.
//!
//! Everything that comes from a guest, a runbook or a library is escaped.

use std::fmt::Write as _;

use disk::{Finding, Level};
use image_library::Consistency;

use super::chart::chart;
use super::{Attempt, Proposal, Report, ServerReport};
use crate::check::{CheckResult, Outcome};
use crate::guest::EditRecord;
use crate::journal::RunOutcome;
use crate::runbook::{bytes_text, duration_text};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut html = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut html, report);
    html
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

/// Milliseconds for people: `0.4 s`, `31 s`, `2 m 05 s`.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0 => "0".to_owned(),
        1..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} m {:02} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {:02} m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

fn write_page(html: &mut String, report: &Report) -> std::fmt::Result {
    let title = escape(&report.runbook.title);
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Drill of {title}: {}</title>\n<style>\n{}</style></head>\n<body>\n",
        report.outcome,
        include_str!("page.css")
    )?;
    write_header(html, report)?;
    write_tiles(html, report)?;
    writeln!(
        html,
        "<section><h2>Timeline</h2>{}{}</section>",
        chart(report),
        LEGEND
    )?;
    write_proposals(html, &report.proposals)?;
    write_findings(html, "Findings", &report.findings)?;
    for server in &report.servers {
        write_server(html, server)?;
    }
    write_record(html, report)?;
    writeln!(html, "</body></html>")
}

const LEGEND: &str = "<p class=\"legend\"><span class=\"key prepare\"></span>prepared \
    <span class=\"key made\"></span>machine made <span class=\"key passed\"></span>running, passed \
    <span class=\"key failed\"></span>running, failed <span class=\"key dot\"></span>a check passed</p>";

fn write_header(html: &mut String, report: &Report) -> std::fmt::Result {
    let outcome = report.outcome.to_string();
    writeln!(
        html,
        "<header><div><p class=\"kind\">Recovery drill</p><h1>{}</h1>\
         <p class=\"when\">{} &middot; runbook <code>{}</code></p></div>\
         <p class=\"verdict {outcome}\">{outcome}</p></header>",
        escape(&report.runbook.title),
        report.started_at.strftime("%-d %B %Y, %H:%M:%S UTC"),
        escape(&report.runbook.name),
    )?;
    match &report.problem {
        Some(problem) => writeln!(html, "<p class=\"problem\">{}</p>", escape(problem)),
        None => Ok(()),
    }
}

fn write_tiles(html: &mut String, report: &Report) -> std::fmt::Result {
    let objectives = &report.objectives;
    let seconds = |seconds| duration_text(std::time::Duration::from_secs(seconds));
    let passed = report
        .servers
        .iter()
        .filter(|server| server.passed())
        .count();
    let checks = report
        .servers
        .iter()
        .filter_map(|server| server.attempts.last());
    let checks: Vec<&CheckResult> = checks.flat_map(|attempt| &attempt.checks).collect();
    let answered = checks
        .iter()
        .filter(|check| check.outcome == Outcome::Passed)
        .count();
    writeln!(html, "<div class=\"tiles\">")?;
    tile(
        html,
        "Recovered in",
        &objectives
            .recovered_after_ms
            .map_or("not recovered".to_owned(), duration),
        &objectives
            .rto_seconds
            .map_or("no objective".to_owned(), |rto| {
                format!("objective (RTO) {}", seconds(rto))
            }),
        objectives.rto_met(),
    )?;
    tile(
        html,
        "Age of the data",
        &objectives
            .data_age_seconds
            .map_or("unknown".to_owned(), seconds),
        &objectives
            .rpo_seconds
            .map_or("no objective".to_owned(), |rpo| {
                format!("objective (RPO) {}", seconds(rpo))
            }),
        objectives.rpo_met(),
    )?;
    let servers = format!("{passed} of {}", report.servers.len());
    tile(
        html,
        "Servers recovered",
        &servers,
        "each from its image in the library",
        Some(passed == report.servers.len()),
    )?;
    let answers = format!("{answered} of {}", checks.len());
    tile(
        html,
        "Checks passed",
        &answers,
        "put to the running machines",
        Some(answered == checks.len()),
    )?;
    writeln!(html, "</div>")
}

fn tile(
    html: &mut String,
    title: &str,
    value: &str,
    note: &str,
    good: Option<bool>,
) -> std::fmt::Result {
    let class = match good {
        Some(true) => "good",
        Some(false) => "bad",
        None => "",
    };
    writeln!(
        html,
        "<div class=\"tile {class}\"><p>{title}</p><strong>{}</strong><small>{}</small></div>",
        escape(value),
        escape(note)
    )
}

fn write_proposals(html: &mut String, proposals: &[Proposal]) -> std::fmt::Result {
    if proposals.is_empty() {
        return Ok(());
    }
    writeln!(html, "<section><h2>Proposed changes of the runbook</h2>")?;
    for Proposal {
        key,
        from,
        to,
        reason,
        ..
    } in proposals
    {
        writeln!(
            html,
            "<pre class=\"diff\"><span class=\"minus\">-{key}: {from}</span>\n<span class=\"plus\">+{key}: {to}</span></pre><p>{}</p>",
            escape(reason),
            key = escape(key),
            from = escape(from),
            to = escape(to)
        )?;
    }
    writeln!(html, "</section>")
}

fn write_findings(html: &mut String, title: &str, findings: &[Finding]) -> std::fmt::Result {
    if findings.is_empty() {
        return Ok(());
    }
    writeln!(html, "<section><h2>{title}</h2><ul class=\"findings\">")?;
    for finding in findings {
        let level = match finding.level {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(
            html,
            "<li class=\"{level}\"><b>{level}</b> {}: {} <code>{}</code>",
            escape(&finding.place),
            escape(&finding.problem),
            escape(&finding.code)
        )?;
        if let Some(remedy) = &finding.remedy {
            write!(html, "<br><small>{}</small>", escape(remedy))?;
        }
        writeln!(html, "</li>")?;
    }
    writeln!(html, "</ul></section>")
}

fn write_server(html: &mut String, server: &ServerReport) -> std::fmt::Result {
    let (class, text) = match (server.passed(), server.attempts.is_empty()) {
        (true, _) => ("passed", "recovered"),
        (false, true) => ("interrupted", "not started"),
        (false, false) => ("failed", "not recovered"),
    };
    writeln!(
        html,
        "<section class=\"server\"><h2>{} <span class=\"badge {class}\">{text}</span></h2>",
        escape(&server.name)
    )?;
    write_facts(html, server)?;
    for attempt in &server.attempts {
        write_attempt(html, attempt)?;
    }
    for adjustment in &server.adjustments {
        writeln!(
            html,
            "<p>Adjustment in the runbook: {}</p>",
            escape(adjustment)
        )?;
    }
    write_edits(html, server)?;
    write_findings(
        html,
        "What the conversion noticed",
        &server.conversion.findings,
    )?;
    writeln!(html, "</section>")
}

fn write_facts(html: &mut String, server: &ServerReport) -> std::fmt::Result {
    let image = &server.image;
    let same = match &image.digest_after {
        Some(after) if *after == image.digest_before => "unchanged by the drill",
        Some(_) => "CHANGED during the drill",
        None => "not read again",
    };
    let disks: Vec<String> = server
        .hardware
        .disk_bytes
        .iter()
        .map(|bytes| size(*bytes))
        .collect();
    writeln!(html, "<dl>")?;
    fact(html, "Image", &image.id.to_string())?;
    fact(
        html,
        "Taken",
        &image
            .taken_at
            .strftime("%-d %B %Y, %H:%M:%S UTC")
            .to_string(),
    )?;
    fact(html, "Consistency", consistency(image.consistency))?;
    fact(html, "Digest", &format!("{} ({same})", image.digest_before))?;
    let hardware = &server.hardware;
    fact(
        html,
        "Machine",
        &format!(
            "{} processors, {} of memory, {}, disks: {}",
            hardware.cpus,
            size(hardware.memory_bytes),
            hardware.firmware,
            disks.join(", ")
        ),
    )?;
    for nic in &hardware.nics {
        fact(html, "Network", nic)?;
    }
    let reads = server.reads;
    let read = format!(
        "{} in {} requests; {} different blocks of 64 KiB",
        size(reads.read_bytes),
        reads.request_count,
        reads.block_count
    );
    fact(html, "Read of the image", &read)?;
    writeln!(html, "</dl>")
}

fn fact(html: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escape(value))
}

fn write_attempt(html: &mut String, attempt: &Attempt) -> std::fmt::Result {
    writeln!(
        html,
        "<h3>On {} <span class=\"badge {outcome}\">{outcome}</span></h3>\
         <p class=\"quiet\">Machine made after {}, processors running after {}.</p>",
        escape(&attempt.profile),
        duration(attempt.started_ms),
        duration(attempt.running_ms),
        outcome = attempt.outcome,
    )?;
    if !attempt.checks.is_empty() {
        writeln!(
            html,
            "<table><thead><tr><th>Check</th><th>Result</th><th class=\"time\">After start</th>\
             <th class=\"time\">After command</th></tr></thead><tbody>"
        )?;
        attempt
            .checks
            .iter()
            .try_for_each(|check| write_check(html, check))?;
        writeln!(html, "</tbody></table>")?;
    }
    let open = if attempt.outcome == RunOutcome::Passed {
        ""
    } else {
        " open"
    };
    if let Some(png) = &attempt.screen_png {
        writeln!(
            html,
            "<details{open}><summary>Screen at the end</summary>\
             <img alt=\"Screen of the machine\" src=\"data:image/png;base64,{png}\"></details>"
        )?;
    }
    if !attempt.console_tail.trim().is_empty() {
        writeln!(
            html,
            "<details{open}><summary>End of the serial console</summary><pre class=\"console\">{}</pre></details>",
            escape(&attempt.console_tail)
        )?;
    }
    Ok(())
}

fn write_check(html: &mut String, check: &CheckResult) -> std::fmt::Result {
    let (class, text) = match check.outcome {
        Outcome::Passed => ("passed", "passed"),
        Outcome::Failed => ("failed", "failed"),
        Outcome::Interrupted => ("interrupted", "interrupted"),
    };
    let reason = check
        .reason
        .as_ref()
        .map(|reason| format!("<br><small>{}</small>", escape(reason)));
    writeln!(
        html,
        "<tr><td>{}{}</td><td><span class=\"badge {class}\">{text}</span></td>\
         <td class=\"time\">{}</td><td class=\"time\">{}</td></tr>",
        escape(&check.check),
        reason.unwrap_or_default(),
        duration(check.after_start_ms),
        duration(check.after_command_ms)
    )
}

fn write_edits(html: &mut String, server: &ServerReport) -> std::fmt::Result {
    let conversion = &server.conversion;
    let source = if conversion.reused {
        "kept from an earlier preparation"
    } else {
        "prepared in this run"
    };
    writeln!(
        html,
        "<h3>What was changed so that it boots</h3><p class=\"quiet\">In an overlay; {source}, for which \
         {} of the image were read, from {} blocks of 64 KiB.</p>",
        size(conversion.reads.read_bytes),
        conversion.reads.block_count
    )?;
    if conversion.edits.is_empty() {
        return writeln!(html, "<p>Nothing: it boots as it is.</p>");
    }
    conversion
        .edits
        .iter()
        .try_for_each(|edit| write_edit(html, edit))
}

fn write_edit(html: &mut String, edit: &EditRecord) -> std::fmt::Result {
    write!(
        html,
        "<details><summary><b>{}</b> <code>{}</code></summary><ul>",
        escape(&edit.verb),
        escape(&edit.path)
    )?;
    for reason in &edit.reasons {
        write!(html, "<li>{}</li>", escape(reason))?;
    }
    write!(html, "</ul><pre class=\"diff\">")?;
    for line in edit.detail.lines() {
        let class = match line.as_bytes().first() {
            Some(b'+') => "plus",
            Some(b'-') => "minus",
            Some(b'@') => "place",
            _ => "same",
        };
        writeln!(html, "<span class=\"{class}\">{}</span>", escape(line))?;
    }
    writeln!(html, "</pre></details>")
}

fn write_record(html: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(html, "<section class=\"record\"><h2>Record</h2><dl>")?;
    fact(html, "Run", report.run.as_str())?;
    fact(
        html,
        "Runbook",
        &format!(
            "{} (BLAKE3 {})",
            report.runbook.file.display(),
            report.runbook.hash
        ),
    )?;
    fact(
        html,
        "Platform",
        &format!("{} {}", report.platform.platform, report.platform.version),
    )?;
    fact(html, "Acceleration", &report.platform.acceleration)?;
    fact(html, "Duration", &duration(report.duration_ms))?;
    fact(html, "Made by", &report.program)?;
    for text in &report.confirmations {
        fact(html, "Not asked in a drill", text)?;
    }
    writeln!(html, "</dl></section>")
}

/// A size for people, in tenths of the largest fitting unit.
fn size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift {
            let tenths = (u128::from(bytes) * 10) >> shift;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenth} {unit}")
            };
        }
    }
    bytes_text(bytes)
}

const fn consistency(level: Consistency) -> &'static str {
    match level {
        Consistency::Fuzzy => "fuzzy: read while it was written",
        Consistency::Crash => "crash: as after a power failure",
        Consistency::Filesystem => "filesystem: frozen or unmounted",
        Consistency::Application => "application: the applications had finished their writes",
        Consistency::Cold => "cold: the server was off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_prints_cannot_become_markup() {
        assert_eq!(
            escape("<script>\"a\" & 'b'"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;"
        );
    }

    #[test]
    fn durations_are_short_and_exact_enough() {
        for (ms, text) in [
            (0, "0"),
            (412, "0.4 s"),
            (31_900, "31 s"),
            (125_000, "2 m 05 s"),
            (7_260_000, "2 h 01 m"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(size(1536 << 20), "1.5 GiB");
    }
}
