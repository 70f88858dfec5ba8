//! Writing tar: POSIX (pax) headers, with the extensions that GNU tar reads for holes and extended attributes.
use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::tree::attributes::Xattr;

const BLOCK: usize = 512;
/// The largest numbers that fit the old fields; larger ones are told in the pax header.
const MOST_ID: u32 = 0o7_777_777;
const MOST_SIZE: u64 = 0o77_777_777_777;

/// One entry's header.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) member: &'a [u8],
    pub(super) kind: EntryType,
    /// Where a symlink points, or the first name of a hard link.
    pub(super) link: Option<&'a [u8]>,
    /// Bytes of the file.
    pub(super) size: u64,
    /// Where a file with holes has data.
    pub(super) data: Option<&'a [(u64, u64)]>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) user: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) mtime: (i64, u32),
    pub(super) device: Option<(u32, u32)>,
    pub(super) xattrs: &'a [Xattr],
}

/// Writes entries one after the other.
pub(super) struct Archive<'a> {
    to: &'a mut dyn Write,
    /// Bytes of the current entry's data that are still to come.
    left: u64,
    padding: usize,
}

impl<'a> Archive<'a> {
    pub(super) fn new(to: &'a mut dyn Write) -> Self {
        Self { to, left: 0, padding: 0 }
    }

    /// Begins an entry. Its data follows through [`Archive::data`]: for a file with holes, the pieces one after the other.
    pub(super) fn begin(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let map = entry.data.map(sparse_map);
        let stored = match (&map, entry.data) {
            (Some(map), Some(data)) => map.len() as u64 + data.iter().map(|(_, length)| length).sum::<u64>(),
            _ => entry.size,
        };
        let mut records = Records::default();
        let mut name = entry.member.to_vec();
        if map.is_some() {
            records.add("GNU.sparse.major", b"1");
            records.add("GNU.sparse.minor", b"0");
            records.add("GNU.sparse.name", entry.member);
            records.add("GNU.sparse.realsize", entry.size.to_string().as_bytes());
            // Where a tar that knows nothing of holes puts the file.
            let cut = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            name.splice(cut..cut, b"GNUSparseFile.0/".iter().copied());
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode & 0o7777);
        header.set_mtime(0);
        self.set_name(&mut header, &mut records, &name);
        if let Some(link) = entry.link {
            if link.len() > 100 {
                records.add("linkpath", link);
            }
            copy(&mut header.as_old_mut().linkname, link);
        }
        self.set_numbers(&mut header, &mut records, entry, stored)?;
        for (key, value) in entry.xattrs {
            records.add_bytes(&xattr_key(key), value);
            if let Some((key, text)) = acl_in_words(key, value) {
                records.add(key, text.as_bytes());
            }
        }
        header.set_cksum();
        if !records.0.is_empty() {
            self.write_records(&records.0, entry)?;
        }
        self.to.write_all(header.as_bytes())?;
        self.left = stored;
        self.padding = padding(stored);
        match map {
            Some(map) => self.data(&map),
            None => self.end_of_data(),
        }
    }

    /// The next bytes of the entry's data.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("an entry of the archive got more bytes than its header says"))?;
        self.end_of_data()
    }

    /// The two empty blocks at the end.
    pub(super) fn finish(self) -> io::Result<()> {
        self.to.write_all(&[0; 2 * BLOCK])
    }

    fn end_of_data(&mut self) -> io::Result<()> {
        if self.left == 0 && self.padding > 0 {
            self.to.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])?;
        }
        Ok(())
    }

    fn set_name(&self, header: &mut Header, records: &mut Records, name: &[u8]) {
        if name.len() > 100 {
            records.add("path", name);
        }
        copy(&mut header.as_old_mut().name, name);
    }

    fn set_numbers(
        &self,
        header: &mut Header,
        records: &mut Records,
        entry: &Entry<'_>,
        stored: u64,
    ) -> io::Result<()> {
        let number = |records: &mut Records, key: &str, value: u64, most: u64| {
            if value > most {
                records.add(key, value.to_string().as_bytes());
            }
            value.min(most)
        };
        header.set_size(number(records, "size", stored, MOST_SIZE));
        header.set_uid(number(records, "uid", entry.uid.into(), MOST_ID.into()));
        header.set_gid(number(records, "gid", entry.gid.into(), MOST_ID.into()));
        for (key, name) in [("uname", entry.user), ("gname", entry.group)] {
            let Some(name) = name else { continue };
            if name.len() > 31 {
                records.add(key, name.as_bytes());
            } else if key == "uname" {
                header.set_username(name)?;
            } else {
                header.set_groupname(name)?;
            }
        }
        let (seconds, nanoseconds) = entry.mtime;
        match u64::try_from(seconds) {
            Ok(old) if nanoseconds == 0 && old <= MOST_SIZE => header.set_mtime(old),
            _ => {
                records.add("mtime", seconds_text(seconds, nanoseconds).as_bytes());
                header.set_mtime(u64::try_from(seconds).unwrap_or(0).min(MOST_SIZE));
            }
        }
        let (major, minor) = entry.device.unwrap_or_default();
        header.set_device_major(major)?;
        header.set_device_minor(minor)
    }

    fn write_records(&mut self, records: &[u8], entry: &Entry<'_>) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        let base = entry.member.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or(b"entry");
        let name = [b"PaxHeaders/".as_slice(), base].concat();
        copy(&mut header.as_old_mut().name, &name);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(records)?;
        self.to.write_all(&[0; BLOCK][..padding(records.len() as u64)])
    }
}

fn copy(field: &mut [u8], bytes: &[u8]) {
    let count = bytes.len().min(field.len());
    field[..count].copy_from_slice(&bytes[..count]);
}

fn padding(size: u64) -> usize {
    // Less than a block.
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// Where the data is, as GNU tar's format 1.0 puts it in front of the data: numbers in lines, filled up to a block.
fn sparse_map(data: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", data.len());
    for (offset, length) in data {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// A time as pax writes it.
fn seconds_text(seconds: i64, nanoseconds: u32) -> String {
    let (sign, whole, part) = if seconds < 0 && nanoseconds > 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
    } else {
        (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs(), nanoseconds)
    };
    if part == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{part:09}").trim_end_matches('0').to_owned()
}

/// GNU tar's key of an extended attribute: `=` and `%` would be misread.
fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'%' => key.extend(b"%25"),
            b'=' => key.extend(b"%3D"),
            other => key.push(*other),
        }
    }
    key
}

/// A POSIX ACL as GNU tar wants it, beside the attribute itself: as text, with owners' numbers.
fn acl_in_words(name: &[u8], value: &[u8]) -> Option<(&'static str, String)> {
    const VERSION: [u8; 4] = 2_u32.to_le_bytes();
    let key = match name {
        b"system.posix_acl_access" => "SCHILY.acl.access",
        b"system.posix_acl_default" => "SCHILY.acl.default",
        _ => return None,
    };
    let entries = value.strip_prefix(&VERSION)?.chunks_exact(8).map(|entry| {
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match entry[0] {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let may = |bit, letter| if entry[2] & bit == 0 { '-' } else { letter };
        Some(format!("{who}:{}{}{}", may(4, 'r'), may(2, 'w'), may(1, 'x')))
    });
    Some((key, entries.collect::<Option<Vec<_>>>()?.join(",")))
}

/// Pax records: `LENGTH KEY=VALUE\n`, where the length counts itself.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &str, value: &[u8]) {
        self.add_bytes(key.as_bytes(), value);
    }

    fn add_bytes(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend(length.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend(key);
        self.0.push(b'=');
        self.0.extend(value);
        self.0.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        let mut records = Records::default();
        records.add("path", b"foo");
        assert_eq!(records.0, b"12 path=foo\n");
        for length in 0..2_000 {
            let mut records = Records::default();
            records.add("k", &vec![b'x'; length]);
            let text = String::from_utf8(records.0).unwrap();
            let (told, _) = text.split_once(' ').unwrap();
            assert_eq!(told.parse(), Ok(text.len()));
        }
    }

    #[test]
    fn times_before_1970_and_parts_of_seconds_are_told() {
        assert_eq!(seconds_text(5, 0), "5");
        assert_eq!(seconds_text(5, 120_000_000), "5.12");
        assert_eq!(seconds_text(-2, 500_000_000), "-1.5");
        assert_eq!(seconds_text(-1, 750_000_000), "-0.25");
        assert_eq!(seconds_text(-3, 0), "-3");
    }
}
