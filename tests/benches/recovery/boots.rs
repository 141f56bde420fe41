// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole starts of the sample server up to its web page: from the library, for the first time and
//! again, and from a local copy of the same disk.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use e2e::results::{Table, promise};
use e2e::{SampleServer, forget, one_machine_at_a_time, user_time};

use super::far::Way;
use super::local::{Recipe, copy_out};
use super::site::{Site, wait_for_page};
use super::{median, rounds, say, seconds};

/// One start differs from the next by a tenth where processors are emulated: a promise of a twentieth needs
/// the median of more of them than the other sections.
const ROUNDS: usize = 9;
/// The promises: of the time that the local copy takes from running processors to the page, as it is, and
/// at the same speed of processors.
const COLD_MAX: f64 = 1.15;
const AGAIN_MAX: f64 = 1.05;

/// How the server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    Local,
    Cold(bool),
    Again(bool),
}

impl Start {
    fn name(self) -> &'static str {
        match self {
            Self::Local => "copied to a local qcow2 first",
            Self::Cold(false) => "directory, cold",
            Self::Again(false) => "directory, again",
            Self::Cold(true) => "TLS, cold",
            Self::Again(true) => "TLS, again",
        }
    }

    fn limit(self) -> Option<f64> {
        match self {
            Self::Local => None,
            Self::Cold(_) => Some(COLD_MAX),
            Self::Again(_) => Some(AGAIN_MAX),
        }
    }
}

/// One start.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// From the command to running processors, the copy included.
    to_running: Duration,
    /// From then on to the page.
    to_page: Duration,
    /// What QEMU used of this computer's processors until then, for the guest's.
    emulated: Duration,
}

impl Times {
    /// How long it takes for each second of processors; waiting makes it longer, slow ones do not.
    fn pace(&self) -> f64 {
        self.to_page.as_secs_f64() / self.emulated.as_secs_f64()
    }
}

type Samples = BTreeMap<Start, Vec<Times>>;

pub(crate) fn run(server: &SampleServer) -> Result<String> {
    let rounds = rounds(ROUNDS);
    let mut samples = Samples::new();
    // They stay to the end, so that no files are deleted while others are measured.
    let near = Site::new(&server.disk());
    let served = Site::new(&server.disk());
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        let recipe = from_library(&near, Way::Directory, server, &mut samples);
        let times = from_copy(&near, &recipe, server);
        note(Start::Local, times, &mut samples);
        let way = Way::Served(Duration::ZERO);
        from_library(&served, way, server, &mut samples);
    }
    Ok(text(&samples, rounds))
}

/// For the first time, and again; gives what the machine is.
fn from_library(site: &Site, way: Way, server: &SampleServer, samples: &mut Samples) -> Recipe {
    let opened = way.open(&site.library);
    site.forget_trace();
    let mut recipe = None;
    for start in [Start::Cold(way.is_served()), Start::Again(way.is_served())] {
        site.chill();
        let machine = site.boot(opened.relevo(), None);
        recipe = Some(Recipe::of(site));
        let page = wait_for_page(machine.port, &server.page);
        let times = Times {
            to_running: machine.took(),
            to_page: page - machine.running,
            emulated: user_time(site.running_process()),
        };
        note(start, times, samples);
        machine.end();
    }
    recipe.expect("it was started twice")
}

fn note(start: Start, times: Times, samples: &mut Samples) {
    say(&format!(
        "{}: {} s, and {} s of processors",
        start.name(),
        seconds(times.to_page),
        seconds(times.emulated),
    ));
    samples.entry(start).or_default().push(times);
}

fn from_copy(site: &Site, recipe: &Recipe, server: &SampleServer) -> Times {
    let _slot = one_machine_at_a_time();
    site.chill();
    let (disk, copied) = copy_out(site.library.relevo(), &site.path("copy"));
    forget(&disk);
    let machine = recipe.start(&disk, &site.path("local"));
    let page = wait_for_page(recipe.port(), &server.page);
    let times = Times {
        to_running: copied + machine.took,
        to_page: page - machine.running,
        emulated: user_time(machine.process()),
    };
    machine.end();
    times
}

fn text(samples: &Samples, rounds: usize) -> String {
    let columns = [
        "start",
        "command to page s",
        "command to processors s",
        "processors to page s",
        "QEMU's user time s",
        "of local",
        "at one speed",
        "promise",
    ];
    let mut table = Table::new(&columns);
    let times = |start: &Start| samples.get(start).into_iter().flatten();
    let middle = |start: &Start, figure: fn(&Times) -> Duration| {
        median(&times(start).map(figure).collect::<Vec<_>>())
    };
    let pace = |start: &Start| {
        let mut paces: Vec<f64> = times(start).map(Times::pace).collect();
        paces.sort_by(f64::total_cmp);
        paces.get(paces.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let local = middle(&Start::Local, |times| times.to_page);
    let local_pace = pace(&Start::Local);
    for start in samples.keys() {
        let to_page = middle(start, |times| times.to_page);
        let ratio = to_page.as_secs_f64() / local.as_secs_f64();
        let at_one_speed = pace(start) / local_pace;
        let kept = |limit| promise(ratio <= limit && at_one_speed <= limit);
        table.row(&[
            start.name().to_owned(),
            seconds(middle(start, |times| times.to_running + times.to_page)),
            seconds(middle(start, |times| times.to_running)),
            seconds(to_page),
            seconds(middle(start, |times| times.emulated)),
            format!("{ratio:.2}"),
            format!("{at_one_speed:.2}"),
            start.limit().map(kept).unwrap_or_default(),
        ]);
    }
    format!(
        "The sample server on virtio, 512 MiB and 2 processors, up to its web page, which is asked for\n\
         every 50 ms through a forwarded port; {rounds} rounds, taking turns, medians. *Cold*: nothing of the\n\
         library in memory, no chunk cache, no trace. *Again*: the same, with the trace of the first start,\n\
         which is fetched ahead. *Local*: `relevo convert --to qcow2` (in the time to the page), the file\n\
         not in memory, and QEMU with the same command line but for the disk. TLS: `image-library serve` on\n\
         this computer. Where processors are emulated they hide what the disk takes; the section above\n\
         does not. *Of local*: the time from running processors to the page, compared. How fast they are\n\
         changes by a third while this runs, so it is compared *at one speed* too, for each second of QEMU's\n\
         user time in it: who waits for a disk takes longer for that second, and who has slower processors\n\
         does not. Promised of both: cold within {COLD_MAX}, again within {AGAIN_MAX}.\n\n{table}"
    )
}
