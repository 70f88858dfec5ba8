//! All tests that use the house from outside, in one binary.
