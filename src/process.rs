//! Child processes: their output line by line, and their whole tree killed when it must be.
