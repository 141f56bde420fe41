// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many histories, and the broken libraries that they must catch.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rstest::rstest;

use super::coverage::Coverage;
use super::mutants::Mutant;
use super::simulate;
use super::world::lock;

/// How many histories an ordinary run has.
const SEEDS: u64 = 300;
/// Within how many a broken library is caught.
const MUTANT_SEEDS: u64 = 400;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs these seeds on all processors; the first that fails ends it.
fn run(seeds: std::ops::Range<u64>) -> Coverage {
    let total = Mutex::new(Coverage::default());
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds.end || lock(&failed).is_some() {
                return;
            }
            match simulate(seed, None) {
                Ok(coverage) => lock(&total).add(&coverage),
                Err(violations) => *lock(&failed) = Some((seed, violations)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some((seed, violations)) = lock(&failed).take() {
        panic!(
            "seed {seed}:\n{}\nreplay it: RELEVO_SEED={seed} cargo test -p image-library --lib \
             simulation::tests::histories",
            violations.join("\n")
        );
    }
    lock(&total).clone()
}

#[test]
fn histories_keep_every_promise_and_cover_every_fault() {
    if let Some(seed) = number("RELEVO_SEED") {
        println!("{}", run(seed..seed + 1));
        return;
    }
    let seeds = number("RELEVO_SEEDS").unwrap_or(SEEDS);
    let begun = Instant::now();
    let coverage = run(0..seeds);
    let seconds = begun.elapsed().as_secs_f64();
    let rate = seeds as f64 / seconds;
    println!("{seeds} seeds in {seconds:.1} s, {rate:.1} a second\n{coverage}");
    let missing = coverage.missing();
    assert!(
        missing.is_empty() || seeds < SEEDS,
        "never happened: {missing:?}"
    );
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..8 {
        assert_eq!(simulate(seed, None), simulate(seed, None), "seed {seed}");
    }
}

#[rstest]
#[case(Mutant::ImageBeforePacks)]
#[case(Mutant::CondemnedForgotten)]
#[case(Mutant::SweepUnmarked)]
#[case(Mutant::PackNotSynced)]
#[case(Mutant::FloorIgnored)]
#[case(Mutant::DamageForgotten)]
fn a_broken_library_is_caught(#[case] mutant: Mutant) {
    // Only a medium that damages what it keeps shows what is wrong with this one.
    let step = if mutant == Mutant::DamageForgotten {
        4
    } else {
        1
    };
    for seed in (step - 1..MUTANT_SEEDS).step_by(step as usize) {
        if let Err(violations) = simulate(seed, Some(mutant)) {
            println!("{mutant:?} is caught by seed {seed}: {}", violations[0]);
            return;
        }
    }
    panic!("{mutant:?} is not caught within {MUTANT_SEEDS} seeds");
}
