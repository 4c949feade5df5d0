//! Any datagram, to the whole engine over a fixed world: it must not panic, its answer must be one
//! that another implementation reads, and it must belong to the question.
//!
//! The first octet of the input chooses transport and source; the rest is the message.

#![no_main]

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use sealane_dns::engine::{
    Memory, Rules, STREAM_SIZE_MAX, Transport, UDP_SIZE_MAX, answer, answer_cut_short, answer_with,
};
use sealane_fuzz_dns::{SOURCES, examine, rules, world};
use sealane_model::Snapshot;

struct Fixed {
    rules: Arc<Rules>,
    world: Arc<Snapshot>,
}

thread_local! {
    /// Lives from one input to the next, as in a thread that answers.
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new(&FIXED.rules, &FIXED.world));
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let world = world();
    Fixed {
        rules: Arc::new(rules(&world, None)),
        world: Arc::new(world),
    }
});

fuzz_target!(|data: &[u8]| {
    let Some((&choice, message)) = data.split_first() else {
        return;
    };
    let fixed = &*FIXED;
    let (transport, size) = match choice & 1 {
        0 => (Transport::Udp, UDP_SIZE_MAX),
        _ => (Transport::Stream, STREAM_SIZE_MAX),
    };
    let source = SOURCES[usize::from(choice >> 1 & 3)];
    let mut out = vec![0xee; size];
    let answered = answer(
        message,
        source,
        transport,
        &fixed.rules,
        &fixed.world,
        &mut out,
    );
    if let Some(answered) = answered {
        examine(message, &out, &answered);
    }

    let mut again = vec![0xee; size];
    let with = |memory: &RefCell<Memory>| {
        answer_with(
            &mut memory.borrow_mut(),
            message,
            source,
            transport,
            &mut again,
        )
    };
    assert_eq!(MEMORY.with(with), answered, "memory changes no answer");
    assert_eq!(again, out);

    // Room that is too small for anything must be noticed too.
    let mut tight = vec![0xee; usize::from(choice)];
    let _ = answer(
        message,
        source,
        transport,
        &fixed.rules,
        &fixed.world,
        &mut tight,
    );

    if let Some(answered) = answer_cut_short(message, &mut out) {
        examine(message, &out, &answered);
    }
});
