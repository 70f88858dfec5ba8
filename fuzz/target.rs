//! The target of `tests/repository/targets.rs` that has this program's name.
#![no_main]

#[path = "../tests/repository/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (_, call) = targets::TARGETS.iter().find(|(name, _)| *name == env!("CARGO_BIN_NAME")).expect("a target");
    call(bytes);
});
