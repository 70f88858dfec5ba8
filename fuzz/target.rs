//! The target of `tests/repository/targets.rs` that has this program's name; `dyndns` is in `tests/dyndns/targets.rs`.
#![no_main]

#[path = "../tests/dyndns/targets.rs"]
mod answers;
#[path = "../tests/repository/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if env!("CARGO_BIN_NAME") == "dyndns" {
        return answers::answers(bytes);
    }
    let (_, call) = targets::TARGETS.iter().find(|(name, _)| *name == env!("CARGO_BIN_NAME")).expect("a target");
    call(bytes);
});
