//! What publishing a world costs, for 1,000 pools of 8 regions: milliseconds of one thread's CPU clock.
//!
//! `cargo bench -p sealane-control`. Prints; judges nothing. This is all the work that a new world makes: those who
//! answer take it up by exchanging a pointer.

use std::hint::black_box;
use std::time::Duration;

use sealane_control::core::Core;
use sealane_model::IdBook;

#[path = "../tests/world/mod.rs"]
mod world;

const POOLS: usize = 1_000;
const REGIONS: usize = 8;
const TIMES: u32 = 50;

fn main() {
    let name = |kind, number| &*format!("{kind}{number}").leak();
    let regions: Vec<(&'static str, usize)> = (0..REGIONS).map(|i| (name("r", i), 2)).collect();
    let pools: Vec<&'static str> = (0..POOLS).map(|i| name("p", i)).collect();
    let pools: Vec<(&'static str, &[(&'static str, usize)])> =
        pools.iter().map(|pool| (*pool, &*regions)).collect();
    let config = world::Plan::new(&pools).config(&mut IdBook::default());
    let mut core = Core::new(world::START, config, 1, None);
    let mut at = world::START;
    let begin = cpu_millis();
    for _ in 0..TIMES {
        at = at + Duration::from_millis(100);
        black_box(core.snapshot(at));
    }
    let each = (cpu_millis() - begin) / f64::from(TIMES);
    println!(
        "{POOLS} pools of {REGIONS} regions, 2 endpoints each: a world is made in {each:.1} ms"
    );
}

/// Of this thread so far; 0 where there is no such `/proc`.
fn cpu_millis() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next();
    let nanos: f64 = first.and_then(|word| word.parse().ok()).unwrap_or(0.0);
    nanos / 1e6
}
