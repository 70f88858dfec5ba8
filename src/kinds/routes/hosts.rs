//! A hosts file of which one marked block is ours. All else in it stays as it is, byte for byte.
use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write as _},
    ops::Range,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use rustix::io::Errno;

use super::{real, table::Table};

/// A larger file is no hosts file.
const LARGEST: u64 = 16 << 20;
/// How each of our marks begins.
const MARK: &str = "# rusuban routes ";
/// Somebody else who writes at the same time is given way so often.
const TRIES: usize = 3;

/// A file as it was read.
pub(super) struct File {
    path: PathBuf,
    job: String,
    /// Empty, if there is no file yet.
    bytes: Vec<u8>,
    is_there: bool,
    /// Where our block is: none, if it has to be added.
    block: Option<Range<usize>>,
}

/// How it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum How {
    /// A new file took the place of the old one, all at once.
    Renamed,
    /// Into the file that is there; why.
    InPlace(&'static str),
}

impl File {
    /// Reads it and finds the block of `job`.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or our marks in it are not as we left them.
    pub(super) fn read(path: &Path, job: &str) -> anyhow::Result<Self> {
        let what = || format!("read {}", path.display());
        let path = real(path);
        let (bytes, is_there) = match fs::metadata(&path) {
            Ok(found) if !found.is_file() => bail!("{} is no file", path.display()),
            Ok(found) if found.len() > LARGEST => bail!("{} is too large for a hosts file", path.display()),
            Ok(_) => (fs::read(&path).with_context(what)?, true),
            Err(error) if error.kind() == ErrorKind::NotFound => (Vec::new(), false),
            Err(error) => return Err(error).with_context(what),
        };
        let block = find(&bytes, job).map_err(|why| {
            anyhow::anyhow!(
                "{}: {why}; nothing was written. Remove the lines that begin with `{}`, and what is between them",
                path.display(),
                mark(job)
            )
        })?;
        Ok(Self { path, job: job.to_owned(), bytes, is_there, block })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Names and addresses in our block.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        let block = self.block.clone().and_then(|block| self.bytes.get(block)).unwrap_or_default();
        let text = String::from_utf8_lossy(block);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let entry = |line: &str| line.split_once(' ').map(|(address, name)| (name.to_owned(), address.to_owned()));
        lines.filter_map(entry).collect()
    }

    /// Whether it has to be written.
    pub(super) fn differs(&self, table: &Table) -> bool {
        !self.is_there || self.with(&table.lines()) != self.bytes
    }

    /// All of it, with these lines in our block.
    fn with(&self, lines: &[String]) -> Vec<u8> {
        let mark = mark(&self.job);
        let mut block = format!("{mark}begin: written anew whenever containers change; keep your own lines outside\n");
        lines.iter().for_each(|line| block.extend([line.as_str(), "\n"]));
        block.push_str(&format!("{mark}end\n"));
        let (before, after) = match &self.block {
            Some(at) => (self.bytes.get(..at.start), self.bytes.get(at.end..)),
            None => (Some(self.bytes.as_slice()), None),
        };
        let mut all = before.unwrap_or_default().to_vec();
        if !all.is_empty() && !all.ends_with(b"\n") {
            all.push(b'\n');
        }
        all.extend(block.into_bytes());
        all.extend(after.unwrap_or_default());
        all
    }

    /// Writes these lines into our block: all at once where the file can be replaced, else into it.
    ///
    /// # Errors
    /// When it cannot be written; then it is as it was, unless it could only be written in place.
    pub(super) fn write(mut self, lines: &[String]) -> anyhow::Result<How> {
        for _ in 0..TRIES {
            let new = self.with(lines);
            let spare = self.path.with_file_name(format!(
                ".{}.rusuban-{}",
                self.path.file_name().unwrap_or_default().to_string_lossy(),
                self.job
            ));
            let replaced = self.replace(&new, &spare);
            if !matches!(replaced, Ok(Replaced::Done)) {
                let _ = fs::remove_file(&spare);
            }
            match replaced? {
                Replaced::Done => return Ok(How::Renamed),
                Replaced::Not(why) => {
                    if self.is_as_read()? {
                        self.overwrite(&new)?;
                        return Ok(How::InPlace(why));
                    }
                }
                Replaced::Changed => {}
            }
            // Somebody else wrote to it meanwhile: what he wrote stays.
            self = Self::read(&self.path, &self.job)?;
        }
        bail!("somebody else writes to it all the time; it is tried again")
    }

    fn is_as_read(&self) -> anyhow::Result<bool> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(bytes == self.bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(!self.is_there),
            Err(error) => Err(error.into()),
        }
    }

    fn replace(&self, new: &[u8], spare: &Path) -> anyhow::Result<Replaced> {
        let was = if self.is_there { Some(fs::metadata(&self.path)?) } else { None };
        if was.as_ref().is_some_and(|was| was.nlink() > 1) {
            return Ok(Replaced::Not("it has several names"));
        }
        match fs::remove_file(spare) {
            Err(error) if error.kind() != ErrorKind::NotFound && !is_closed(&error) => return Err(error.into()),
            _ => {}
        }
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(spare);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if self.is_there && is_closed(&error) => {
                return Ok(Replaced::Not("its folder cannot be written to"));
            }
            Err(error) => return Err(error.into()),
        };
        file.write_all(new)?;
        match &was {
            Some(was) => {
                if fchown(&file, Some(was.uid()), Some(was.gid())).is_err() {
                    return Ok(Replaced::Not("a new one would have another owner"));
                }
                copy_attributes(&self.path, spare);
                // After the owner, whose change takes bits away.
                file.set_permissions(fs::Permissions::from_mode(was.mode() & 0o7777))?;
            }
            None => file.set_permissions(fs::Permissions::from_mode(0o644))?,
        }
        file.sync_all()?;
        if !self.is_as_read()? {
            return Ok(Replaced::Changed);
        }
        match fs::rename(spare, &self.path) {
            Ok(()) => {}
            Err(error) if matches!(errno(&error), Some(Errno::BUSY | Errno::XDEV)) => {
                return Ok(Replaced::Not("it is mounted here by itself, and cannot be replaced"));
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(folder) = self.path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(Replaced::Done)
    }

    /// Room is taken before anything is written, so that a full disk leaves it as it was.
    fn overwrite(&self, new: &[u8]) -> anyhow::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).open(&self.path)?;
        let (length, before) = (new.len() as u64, self.bytes.len() as u64);
        if length > before
            && let Err(error) = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, length)
        {
            ensure!(matches!(error, Errno::OPNOTSUPP | Errno::NOSYS), std::io::Error::from(error));
        }
        file.write_all(new)?;
        file.set_len(length)?;
        Ok(file.sync_all()?)
    }
}

/// Whether a new file took its place.
enum Replaced {
    Done,
    Not(&'static str),
    Changed,
}

fn errno(error: &std::io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// Whether a folder is not for us to write to.
fn is_closed(error: &std::io::Error) -> bool {
    matches!(errno(error), Some(Errno::ROFS | Errno::ACCESS | Errno::PERM))
}

/// What cannot be kept is left: most file systems have none.
fn copy_attributes(from: &Path, to: &Path) {
    for name in xattr::list(from).into_iter().flatten() {
        if let Ok(Some(value)) = xattr::get(from, &name) {
            let _ = xattr::set(to, &name, &value);
        }
    }
}

fn mark(job: &str) -> String {
    format!("{MARK}{job} ")
}

/// Our block, marks included. Fails where they are not as we left them.
fn find(bytes: &[u8], job: &str) -> Result<Option<Range<usize>>, String> {
    let mark = mark(job);
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    let mut others = Vec::new();
    let mut at = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let (from, number) = (at, index + 1);
        at += line.len();
        let Some(rest) = line.strip_prefix(mark.as_bytes()) else {
            if line.starts_with(MARK.as_bytes()) {
                others.push((from, number));
            }
            continue;
        };
        if rest.starts_with(b"begin") {
            begins.push((from, number));
        } else if rest.starts_with(b"end") {
            ends.push((at, number));
        } else {
            return Err(format!("line {number} begins like a mark of ours and is none"));
        }
    }
    let lines =
        |marks: &[(usize, usize)]| marks.iter().map(|(_, number)| number.to_string()).collect::<Vec<_>>().join(" and ");
    match (&begins[..], &ends[..]) {
        ([], []) => Ok(None),
        ([(from, _)], [(to, _)]) if from < to => match others.iter().find(|(at, _)| (from..to).contains(&at)) {
            Some((_, number)) => Err(format!("line {number}, inside our block, is a mark of another job")),
            None => Ok(Some(*from..*to)),
        },
        ([(_, begin)], [(_, end)]) => {
            Err(format!("our block ends in line {end} and begins after that, in line {begin}"))
        }
        ([_, _, ..], _) => Err(format!("our block begins more than once, in lines {}", lines(&begins))),
        (_, [_, _, ..]) => Err(format!("our block ends more than once, in lines {}", lines(&ends))),
        ([(_, begin)], []) => Err(format!("our block begins in line {begin} and does not end")),
        ([], [(_, end)]) => Err(format!("our block ends in line {end} and does not begin")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(all: &[&str]) -> Vec<String> {
        all.iter().map(|line| (*line).to_owned()).collect()
    }

    /// Somebody's file, written once, and once more.
    fn written(own: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        fs::write(&path, own).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let write = |of: &[&str]| File::read(&path, "routes").unwrap().write(&lines(of)).unwrap();
        assert_eq!(write(&["10.0.0.1 a", "10.0.0.2 b"]), How::Renamed);
        assert_eq!(write(&["10.0.0.3 c"]), How::Renamed);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        (folder, path)
    }

    #[test]
    fn all_around_the_block_stays_byte_for_byte() {
        for own in [&b""[..], b"127.0.0.1 localhost\n", b"\r\n# caf\xe9 \xff\0\r\n\n\t1.1.1.1 x  \r\n", b"no end"] {
            let (_folder, path) = written(own);
            // What is added after the block stays as well, also without an end.
            let mut bytes = fs::read(&path).unwrap();
            bytes.extend(b"9.9.9.9 later\n\n# and so on");
            fs::write(&path, &bytes).unwrap();
            let file = File::read(&path, "routes").unwrap();
            assert_eq!(file.names(), [("c".to_owned(), "10.0.0.3".to_owned())].into());
            file.write(&[]).unwrap();
            let after = fs::read(&path).unwrap();
            assert!(after.starts_with(own) && after.ends_with(b"end\n9.9.9.9 later\n\n# and so on"));
            // Another job has a block of its own.
            File::read(&path, "routes-two").unwrap().write(&lines(&["1.2.3.4 d"])).unwrap();
            let both = fs::read(&path).unwrap();
            assert!(both.starts_with(&after), "{}", String::from_utf8_lossy(&both));
            let again = File::read(&path, "routes").unwrap();
            assert_eq!(again.with(&[]), both, "it is as it should be");
        }
    }

    #[test]
    fn marks_that_are_not_as_we_left_them_are_refused_and_nothing_is_written() {
        let (begin, end) = ("# rusuban routes job begin: x\n", "# rusuban routes job end\n");
        let other = "# rusuban routes other begin\n";
        for (text, expected) in [
            (format!("a\n{begin}b\n"), "our block begins in line 2 and does not end"),
            (format!("{end}b\n"), "our block ends in line 1 and does not begin"),
            (format!("{end}{begin}"), "our block ends in line 1 and begins after that, in line 2"),
            (format!("{begin}{end}{begin}{end}"), "our block begins more than once, in lines 1 and 3"),
            (format!("{begin}{end}{end}"), "our block ends more than once, in lines 2 and 3"),
            (format!("{begin}{other}{end}"), "line 2, inside our block, is a mark of another job"),
            ("# rusuban routes job was here\n".to_owned(), "line 1 begins like a mark of ours and is none"),
        ] {
            assert_eq!(find(text.as_bytes(), "job").unwrap_err(), expected, "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        fs::write(&path, format!("{begin}1.1.1.1 a\n")).unwrap();
        let refused = File::read(&path, "job").err().unwrap().to_string();
        assert!(
            refused.contains("nothing was written. Remove the lines that begin with `# rusuban routes job `"),
            "{refused}"
        );
    }

    #[test]
    fn a_link_stays_a_link_and_a_second_name_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link, name] = ["hosts", "link", "name"].map(|name| folder.path().join(name));
        fs::write(&path, "1.1.1.1 a\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        File::read(&link, "job").unwrap().write(&lines(&["2.2.2.2 b"])).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        fs::hard_link(&path, &name).unwrap();
        let how = File::read(&path, "job").unwrap().write(&lines(&["3.3.3.3 c"])).unwrap();
        assert_eq!(how, How::InPlace("it has several names"));
        assert!(fs::read_to_string(&name).unwrap().contains("3.3.3.3 c\n"));
        // Shorter than before, in place.
        File::read(&path, "job").unwrap().write(&[]).unwrap();
        assert!(fs::read_to_string(&name).unwrap().ends_with("outside\n# rusuban routes job end\n"));
        let new = folder.path().join("new");
        File::read(&new, "job").unwrap().write(&lines(&["4.4.4.4 d"])).unwrap();
        assert_eq!(fs::metadata(&new).unwrap().mode() & 0o777, 0o644);
    }
}
