//! Reading tar: what [`super::tree`] writes, and what GNU tar writes with `--format=posix`.
use std::io::{self, Read};

use tar::{EntryType, Header};

const BLOCK: u64 = 512;
/// A pax header or a map of holes beyond this is refused: it would have to be held in memory.
const MOST: u64 = 256 << 20;

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its name's parts, checked: none is empty, `.` or `..`.
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) kind: EntryType,
    /// Where a symlink points, as it is.
    pub(super) target: Vec<u8>,
    /// Bytes of the file, holes counted.
    pub(super) size: u64,
    /// Where its data belongs; it follows in this order.
    pub(super) pieces: Vec<(u64, u64)>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries one after the other.
pub(super) struct Reader<'a> {
    from: &'a mut dyn Read,
    /// Bytes of the current entry's data not yet read, and of the padding behind them.
    left: u64,
    padding: u64,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the tar archive is damaged: {}", what.into()))
}

impl<'a> Reader<'a> {
    pub(super) fn new(from: &'a mut dyn Read) -> Self {
        Self { from, left: 0, padding: 0 }
    }

    /// The next entry; data of the one before that was not read is passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut records = Vec::new();
        loop {
            self.pass_over()?;
            let Some(header) = self.header()? else {
                return if records.is_empty() { Ok(None) } else { Err(wrong("it ends after a pax header")) };
            };
            let size = header.size()?;
            match header.entry_type() {
                EntryType::XHeader => records = read_records(&self.small(size)?)?,
                // Comments and defaults for all entries: ours have none.
                EntryType::XGlobalHeader => drop(self.small(size)?),
                kind => return self.member(&header, kind, size, &records).map(Some),
            }
        }
    }

    /// Reads data of the current entry.
    pub(super) fn data(&mut self, to: &mut [u8]) -> io::Result<()> {
        self.left =
            self.left.checked_sub(to.len() as u64).ok_or_else(|| wrong("an entry has less data than it says"))?;
        self.from.read_exact(to).map_err(cut)
    }

    fn member(&mut self, header: &Header, kind: EntryType, size: u64, records: &[Record]) -> io::Result<Member> {
        let find = |key: &str| records.iter().rev().find(|(found, _)| found == key.as_bytes()).map(|(_, value)| value);
        let number = |key: &str, old: u64| match find(key) {
            None => Ok(old),
            Some(value) => digits(value).ok_or_else(|| wrong(format!("`{key}` is not a number"))),
        };
        let id = |key: &str, old: u64| {
            u32::try_from(number(key, old)?).map_err(|_| wrong(format!("`{key}` is not an owner")))
        };
        let has_data = matches!(kind, EntryType::Regular | EntryType::Continuous);
        let stored = if has_data { number("size", size)? } else { 0 };
        self.left = stored;
        let whole = stored.checked_next_multiple_of(BLOCK).ok_or_else(|| wrong("an entry is larger than anything"))?;
        self.padding = whole - stored;
        let name = match find("GNU.sparse.name").or_else(|| find("path")) {
            Some(name) => name.clone(),
            None => header.path_bytes().into_owned(),
        };
        let (size, pieces) = match find("GNU.sparse.major") {
            None => (stored, vec![(0, stored)]),
            Some(major) if major == b"1" => {
                let real = number("GNU.sparse.realsize", 0)?;
                (real, self.sparse_map(real)?)
            }
            Some(_) => return Err(wrong("a file's holes are told in a way that is not known here")),
        };
        let target = match find("linkpath") {
            Some(target) => target.clone(),
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let mtime = match find("mtime") {
            Some(text) => moment(text).ok_or_else(|| wrong("`mtime` is not a time"))?,
            None => (i64::try_from(header.mtime()?).map_err(|_| wrong("a time is out of range"))?, 0),
        };
        let xattrs = records.iter().filter_map(|(key, value)| {
            let key = key.strip_prefix(b"SCHILY.xattr.")?;
            Some((unescape(key), value.clone()))
        });
        Ok(Member {
            parts: safe_parts(&name)?,
            kind,
            target,
            size,
            pieces,
            mode: header.mode()? & 0o7777,
            uid: id("uid", header.uid()?)?,
            gid: id("gid", header.gid()?)?,
            mtime,
            device: if matches!(kind, EntryType::Char | EntryType::Block) {
                (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0))
            } else {
                (0, 0)
            },
            xattrs: xattrs.collect(),
        })
    }

    /// The map in front of the data of a file with holes.
    fn sparse_map(&mut self, real: u64) -> io::Result<Vec<(u64, u64)>> {
        let mut block = [0; BLOCK as usize];
        let mut at = block.len();
        let mut read = 0;
        let mut next = |reader: &mut Self| -> io::Result<u64> {
            let mut line = Vec::new();
            loop {
                if at == block.len() {
                    reader.data(&mut block)?;
                    read += BLOCK;
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                if byte == b'\n' {
                    return digits(&line).ok_or_else(|| wrong("a map of holes is not made of numbers"));
                }
                line.push(byte);
                if line.len() > 20 || read > MOST {
                    return Err(wrong("a map of holes is too long"));
                }
            }
        };
        let count = next(self)?;
        let mut pieces = Vec::new();
        let (mut end, mut sum) = (0_u64, 0_u64);
        for _ in 0..count {
            let (offset, length) = (next(self)?, next(self)?);
            let piece_end = offset.checked_add(length).filter(|end| *end <= real);
            if offset < end {
                return Err(wrong("pieces of a file overlap"));
            }
            end = piece_end.ok_or_else(|| wrong("a piece lies beyond its file's end"))?;
            sum += length;
            pieces.push((offset, length));
        }
        if sum != self.left {
            return Err(wrong("a file's pieces do not add up"));
        }
        Ok(pieces)
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK as usize];
        self.from.read_exact(&mut block).map_err(cut)?;
        if block.iter().all(|byte| *byte == 0) {
            self.end()?;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        if header.cksum()? != sum {
            return Err(wrong("a header's checksum does not fit"));
        }
        Ok(Some(header))
    }

    /// Behind the first empty block only empty ones may follow.
    fn end(&mut self) -> io::Result<()> {
        let mut rest = [0; 4096];
        let mut seen = 0;
        loop {
            let count = self.from.read(&mut rest)?;
            seen += count;
            if rest[..count].iter().any(|byte| *byte != 0) {
                return Err(wrong("there is something behind its end"));
            }
            if count == 0 {
                return if seen >= BLOCK as usize { Ok(()) } else { Err(wrong("its end is cut off")) };
            }
        }
    }

    fn small(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MOST {
            return Err(wrong("a pax header is too long"));
        }
        let mut bytes = Vec::new();
        if (&mut *self.from).take(size).read_to_end(&mut bytes)? as u64 != size {
            return Err(wrong("it is cut off"));
        }
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(bytes)
    }

    fn pass_over(&mut self) -> io::Result<()> {
        let wanted = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        let passed = io::copy(&mut (&mut *self.from).take(wanted), &mut io::sink())?;
        if passed == wanted { Ok(()) } else { Err(wrong("it is cut off")) }
    }
}

type Record = (Vec<u8>, Vec<u8>);

fn read_records(mut bytes: &[u8]) -> io::Result<Vec<Record>> {
    let broken = || wrong("a pax header is not well-formed");
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = digits(&bytes[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?;
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(broken());
        }
        let record = &bytes[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// A name's parts. A name that would lead out of the place it is restored to is never written by us.
pub(super) fn safe_parts(name: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let refused = |why| wrong(format!("an entry named `{}` {why}", String::from_utf8_lossy(name)));
    if name.first() == Some(&b'/') {
        return Err(refused("begins at the root"));
    }
    let mut parts: Vec<Vec<u8>> = name.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    // A folder's name ends in `/`.
    if parts.last().is_some_and(Vec::is_empty) {
        parts.pop();
    }
    // GNU tar puts `./` in front.
    if parts.len() > 1 && parts[0] == b"." {
        parts.remove(0);
    }
    let unsafe_part = |part: &Vec<u8>| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
    if parts.is_empty() || parts.iter().any(unsafe_part) {
        return Err(refused("would lead elsewhere"));
    }
    Ok(parts)
}

fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// `-1.25` as seconds and nanoseconds after them.
fn moment(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let whole = i64::try_from(digits(whole.as_bytes())?).ok()?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        let digit = part.as_bytes().get(place).map_or(Some(0), |byte| byte.is_ascii_digit().then(|| byte - b'0'))?;
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    Some(match (sign, nanoseconds) {
        (1, _) => (whole, nanoseconds),
        (_, 0) => (-whole, 0),
        _ => (-whole - 1, 1_000_000_000 - nanoseconds),
    })
}

fn unescape(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, behind)) = rest.split_first() {
        let (byte, used) = match behind {
            [b'2', b'5', ..] if *first == b'%' => (b'%', 3),
            [b'3', b'D' | b'd', ..] if *first == b'%' => (b'=', 3),
            _ => (*first, 1),
        };
        name.push(byte);
        rest = &rest[used..];
    }
    name
}

fn cut(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { wrong("it is cut off") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for wrong in ["/etc/passwd", "a/../../b", "..", "", "a//b", "a/./b", ".", "/", "a/\0"] {
            assert!(safe_parts(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert_eq!(safe_parts(b"./a/b/").unwrap(), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(safe_parts(b"a/..b").unwrap(), [b"a".to_vec(), b"..b".to_vec()]);
    }

    #[test]
    fn times_read_back_as_written() {
        for (text, time) in [
            ("5", (5, 0)),
            ("5.12", (5, 120_000_000)),
            ("-1.5", (-2, 500_000_000)),
            ("-0.25", (-1, 750_000_000)),
            ("-3", (-3, 0)),
        ] {
            assert_eq!(moment(text.as_bytes()), Some(time), "{text}");
        }
        assert_eq!(moment(b"x"), None);
        assert_eq!(unescape(b"user.a%3Db%25%"), b"user.a=b%%");
    }
}
