//! Backups stored plainly: one zstd (and age) object per source, and a manifest written last.
