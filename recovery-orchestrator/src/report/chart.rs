// SPDX-License-Identifier: MIT OR Apache-2.0
//! The timeline of a drill as SVG: a row per server, a bar per attempt, a mark per check.

use std::fmt::Write as _;

use super::page::{duration, escape};
use super::{Report, ServerReport};
use crate::check::Outcome;
use crate::journal::RunOutcome;

const LEFT: u64 = 150;
const WIDTH: u64 = 820;
const ROW: u64 = 46;
const TOP: u64 = 34;
/// So many labels on the axis at most.
const TICKS_MAX: u64 = 8;

/// The chart; empty when nothing was started.
pub(super) fn chart(report: &Report) -> String {
    let rows = u64::try_from(report.servers.len()).unwrap_or(0);
    let end = end_ms(report);
    let scale = Scale {
        end_ms: end.max(1000),
    };
    let height = TOP + rows * ROW + 8;
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"Timeline of the drill\">",
        LEFT + WIDTH + 40
    );
    // Writing to a string cannot fail.
    let _ = axis(&mut svg, &scale, report, height);
    for (index, server) in report.servers.iter().enumerate() {
        let y = TOP + u64::try_from(index).unwrap_or(0) * ROW;
        let _ = row(&mut svg, &scale, server, y);
    }
    svg.push_str("</svg>");
    svg
}

fn end_ms(report: &Report) -> u64 {
    let attempts = report.servers.iter().flat_map(|server| &server.attempts);
    let last = attempts.map(|attempt| attempt.ended_ms).max();
    last.unwrap_or(0)
        .max(report.objectives.recovered_after_ms.unwrap_or(0))
}

struct Scale {
    end_ms: u64,
}

impl Scale {
    fn x(&self, ms: u64) -> u64 {
        LEFT + ms.min(self.end_ms) * WIDTH / self.end_ms
    }

    /// The smallest round step that gives few enough labels.
    fn step_ms(&self) -> u64 {
        const STEPS: [u64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
        let step = STEPS
            .iter()
            .find(|step| self.end_ms / (**step * 1000) <= TICKS_MAX);
        step.copied().unwrap_or(86_400) * 1000
    }
}

fn axis(svg: &mut String, scale: &Scale, report: &Report, height: u64) -> std::fmt::Result {
    let mut ms = 0;
    while ms <= scale.end_ms {
        let x = scale.x(ms);
        write!(
            svg,
            "<line class=\"grid\" x1=\"{x}\" y1=\"22\" x2=\"{x}\" y2=\"{}\"/>",
            height - 8
        )?;
        write!(
            svg,
            "<text class=\"tick\" x=\"{x}\" y=\"14\">{}</text>",
            duration(ms)
        )?;
        ms += scale.step_ms();
    }
    if let Some(rto) = report
        .objectives
        .rto_seconds
        .map(|seconds| seconds.saturating_mul(1000))
        && rto <= scale.end_ms
    {
        let x = scale.x(rto);
        write!(
            svg,
            "<line class=\"rto\" x1=\"{x}\" y1=\"22\" x2=\"{x}\" y2=\"{}\"/>",
            height - 8
        )?;
    }
    Ok(())
}

fn row(svg: &mut String, scale: &Scale, server: &ServerReport, y: u64) -> std::fmt::Result {
    let middle = y + ROW / 2;
    write!(
        svg,
        "<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
        LEFT - 12,
        middle + 4,
        escape(&server.name)
    )?;
    let timeline = server.timeline;
    bar(
        svg,
        scale,
        y,
        ("prepare", "prepared"),
        (timeline.prepare_started_ms, timeline.prepare_ended_ms),
    )?;
    for attempt in &server.attempts {
        bar(
            svg,
            scale,
            y,
            ("made", "machine made"),
            (attempt.started_ms, attempt.running_ms),
        )?;
        let class = match attempt.outcome {
            RunOutcome::Passed => "passed",
            RunOutcome::Failed => "failed",
            RunOutcome::Interrupted => "interrupted",
        };
        bar(
            svg,
            scale,
            y,
            (class, &attempt.profile),
            (attempt.running_ms, attempt.ended_ms),
        )?;
        for check in &attempt.checks {
            let x = scale.x(check.after_command_ms);
            let class = if check.outcome == Outcome::Passed {
                "dot"
            } else {
                "dot miss"
            };
            let title = format!("{}: {}", check.check, duration(check.after_command_ms));
            write!(
                svg,
                "<circle class=\"{class}\" cx=\"{x}\" cy=\"{middle}\" r=\"5\"><title>{}</title></circle>",
                escape(&title)
            )?;
        }
    }
    Ok(())
}

fn bar(
    svg: &mut String,
    scale: &Scale,
    y: u64,
    (class, title): (&str, &str),
    (from_ms, to_ms): (u64, u64),
) -> std::fmt::Result {
    let (x, end) = (scale.x(from_ms), scale.x(to_ms));
    let width = end.saturating_sub(x).max(3);
    write!(
        svg,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{}\" rx=\"4\"><title>{}: {} to {}</title></rect>",
        y + 11,
        ROW - 22,
        escape(title),
        duration(from_ms),
        duration(to_ms)
    )
}
