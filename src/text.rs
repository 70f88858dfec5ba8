//! Words for people: sizes, lengths of time, moments. Pure.
