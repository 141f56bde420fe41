// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole starts of the sample server up to its web page: from the library, for the first time and
//! again, each beside a start from a local copy of the same disk.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use e2e::results::{Table, promise};
use e2e::{SampleServer, forget};

use super::far::{Opened, Way};
use super::local::{Recipe, copy_out};
use super::site::Site;
use super::turns::{Times, Turning, take_turns};
use super::{median, rounds, say, seconds};

/// Of eight pairs of starts from the same local copy, which took turns like these, six differed by less
/// than a twenty-fifth, two by a tenth, as starts of one guest do: the middle of seven tells a twentieth.
const ROUNDS: usize = 7;
/// The promises: of the time that the local copy takes from running processors to the page, as it is, and
/// at the same speed of processors.
const COLD_MAX: f64 = 1.15;
const AGAIN_MAX: f64 = 1.05;

/// How the server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Start {
    Cold(Way),
    Again(Way),
}

impl Start {
    fn name(self) -> String {
        match self {
            Self::Cold(way) => format!("{}, cold", way.name()),
            Self::Again(way) => format!("{}, again", way.name()),
        }
    }

    fn limit(self) -> f64 {
        match self {
            Self::Cold(_) => COLD_MAX,
            Self::Again(_) => AGAIN_MAX,
        }
    }
}

/// A start from the library, and the one from the local copy beside it.
#[derive(Debug, Clone, Copy)]
struct Pair {
    library: Times,
    local: Times,
}

impl Pair {
    fn of_local(&self) -> f64 {
        self.library.to_page.as_secs_f64() / self.local.to_page.as_secs_f64()
    }

    fn at_one_speed(&self) -> f64 {
        self.library.pace() / self.local.pace()
    }
}

type Samples = BTreeMap<Start, Vec<Pair>>;

/// A library, and the command line of its machine.
struct Place {
    way: Way,
    site: Site,
    recipe: Recipe,
}

impl Place {
    fn new(way: Way, server: &SampleServer) -> Self {
        let site = Site::new(&server.disk());
        let machine = site.boot(site.library.relevo(), None);
        let recipe = Recipe::of(&site);
        machine.end();
        Self { way, site, recipe }
    }

    /// For the first time, and again.
    fn measure(&self, sentence: &str, samples: &mut Samples) {
        let opened = self.way.open(&self.site.library);
        self.site.forget_trace();
        for start in [Start::Cold(self.way), Start::Again(self.way)] {
            let is_known = self.site.has_trace();
            assert_eq!(is_known, start == Start::Again(self.way), "the trace");
            let pair = self.pair(&opened, sentence);
            say(&format!(
                "{}: {} s, beside {} s from a local file: {:.3}, at one speed {:.3}",
                start.name(),
                seconds(pair.library.to_page),
                seconds(pair.local.to_page),
                pair.of_local(),
                pair.at_one_speed(),
            ));
            samples.entry(start).or_default().push(pair);
        }
    }

    fn pair(&self, opened: &Opened<'_>, sentence: &str) -> Pair {
        let relevo = self.site.library.relevo();
        let (disk, copied) = copy_out(relevo, &self.site.path("copy"));
        self.site.chill();
        forget(&disk);
        let beside = self.recipe.stand(&disk, &self.site.path("local"));
        let (beside, process) = Turning::local(beside, self.recipe.port());
        let machine = self.site.boot(opened.relevo(), None);
        let (machine, _slot) = Turning::booted(&self.site, opened, machine);
        let [library, mut local] = take_turns([machine, beside], sentence);
        local.to_running += copied;
        process.kill();
        self.site.library.relevo().args("cleanup --all").succeeds();
        Pair { library, local }
    }
}

pub(crate) fn run(server: &SampleServer) -> Result<String> {
    let rounds = rounds(ROUNDS);
    let mut samples = Samples::new();
    // They stay to the end, so that no files are deleted while others are measured.
    let ways = [Way::Directory, Way::Served(Duration::ZERO)];
    let places = ways.map(|way| Place::new(way, server));
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        for place in &places {
            place.measure(&server.page, &mut samples);
        }
    }
    Ok(text(&samples, rounds))
}

fn text(samples: &Samples, rounds: usize) -> String {
    let columns = [
        "start",
        "command to processors s",
        "processors to page s",
        "copy and start s",
        "its page s",
        "of local",
        "at one speed",
        "from, to",
        "promise",
    ];
    let mut table = Table::new(&columns);
    for (start, pairs) in samples {
        let time = |figure: fn(&Pair) -> Duration| {
            seconds(median(&pairs.iter().map(figure).collect::<Vec<_>>()))
        };
        let ratios = sorted(pairs, Pair::of_local);
        let (of_local, at_one_speed) =
            (middle(&ratios), middle(&sorted(pairs, Pair::at_one_speed)));
        let ends = [ratios.first(), ratios.last()].map(|end| end.copied().unwrap_or(f64::NAN));
        table.row(&[
            start.name(),
            time(|pair| pair.library.to_running),
            time(|pair| pair.library.to_page),
            time(|pair| pair.local.to_running),
            time(|pair| pair.local.to_page),
            format!("{of_local:.2}"),
            format!("{at_one_speed:.2}"),
            format!("{:.2}, {:.2}", ends[0], ends[1]),
            promise(of_local <= start.limit() && at_one_speed <= start.limit()),
        ]);
    }
    format!(
        "The sample server on virtio, 512 MiB and 2 processors, up to its web page, which is asked for\n\
         every 50 ms through a forwarded port; {rounds} rounds, medians. *Cold*: nothing of the library in\n\
         memory, no chunk cache, no trace. *Again*: the same, with the trace of the first start, which is\n\
         fetched ahead. TLS: `image-library serve` on this computer. Beside each, the same machine *with a\n\
         local disk*: `relevo convert --to qcow2` (*copy and start*), the file not in memory, and QEMU with the\n\
         same command line but for the disk.\n\n\
         The two start at the same time and take turns, a second each: how fast a computer's processors are\n\
         changes by a third while this runs, and so it does for both. Whose turn is over stands still, with its\n\
         clocks and with who serves its disk, and the other's turns are not counted. `relevo boot` has been\n\
         killed by then, for its place at the monitor; its machine goes on. Where processors are\n\
         emulated they hide what the disk takes; the section above does not. *Of local*: the time from\n\
         running processors to the page, each compared with the one beside it, and the least and the most of\n\
         these. *At one speed*: the same for each second of QEMU's user time in it: who waits for a disk takes\n\
         longer for that second. Promised of both: cold within {COLD_MAX}, again within {AGAIN_MAX}.\n\n{table}"
    )
}

fn sorted(pairs: &[Pair], ratio: fn(&Pair) -> f64) -> Vec<f64> {
    let mut ratios: Vec<f64> = pairs.iter().map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}

/// The middle one; not a number of none.
fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
