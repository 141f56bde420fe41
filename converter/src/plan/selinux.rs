// SPDX-License-Identifier: MIT OR Apache-2.0
//! Labels of new files where the guest uses SELinux.
//!
//! A new file is labelled as its neighbours are when it is written, as the guest's kernel would do
//! by its directory; existing files keep their labels. Where no label can be read, the guest is asked
//! to label all its files at its next start.

use disk::{Finding, Level};

use crate::inspect::findings::{WithRemedy, finding};
use crate::inspect::{Inspection, Labels};
use crate::plan::edit::{Change, Edit};

const REQUEST: &str = "/.autorelabel";

/// Adds the request where new files would have no label.
pub(crate) fn plan(inspection: &Inspection, edits: &mut Vec<Edit>, findings: &mut Vec<Finding>) {
    let Labels::Unreadable { relabels } = inspection.labels else {
        return;
    };
    let makes_files = edits
        .iter()
        .any(|edit| matches!(edit.change, Change::Create { .. }));
    let place = inspection.place_on_root(REQUEST);
    let Some(place) = place.filter(|_| makes_files) else {
        return;
    };
    findings.push(
        finding(
            Level::Warning,
            "selinux.relabel",
            "SELinux",
            "the labels of this guest's files cannot be read, so new files have none; the guest \
             labels all files at its first start",
        )
        .remedy("allow for a first start that takes minutes longer"),
    );
    if relabels {
        return;
    }
    edits.push(Edit {
        place,
        reasons: vec!["new files get their SELinux labels at the next start".to_owned()],
        change: Change::Create {
            content: String::new(),
            mode: 0o644,
        },
    });
}
