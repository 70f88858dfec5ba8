//! Which generations stay. Pure; refuses to empty a repository and never deletes the newest good backup.
