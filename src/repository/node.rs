//! What is in a folder: nodes, as the restic format writes them.
use std::{borrow::Cow, ffi::OsStr, os::unix::ffi::OsStrExt as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::Id;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A file with content.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Dev,
    /// A character device.
    CharDev,
    /// A pipe.
    Fifo,
    /// A socket; ours hold none.
    Socket,
    /// Anything else that another program stored.
    #[serde(other)]
    Irregular,
}

/// A file, a folder or another thing with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name: bytes, as the file system has them.
    #[serde(with = "quoted")]
    pub name: Vec<u8>,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: NodeKind,
    /// Rights and kind as Go counts them; see [`Node::mode`].
    #[serde(rename = "mode", default, skip_serializing_if = "is_zero_32")]
    pub(super) go_mode: u32,
    /// When its content changed.
    #[serde(default = "epoch")]
    pub mtime: Moment,
    /// When it was read last; ours say the same as `mtime`, so that reading changes no backup.
    #[serde(default = "epoch")]
    pub atime: Moment,
    /// When anything of it changed.
    #[serde(default = "epoch")]
    pub ctime: Moment,
    /// Its owner.
    #[serde(default)]
    pub uid: u32,
    /// Its group.
    #[serde(default)]
    pub gid: u32,
    /// The owner's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The group's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its number on its file system.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inode: u64,
    /// The file system's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device_id: u64,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// How many names it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub links: u64,
    /// Where a symbolic link points, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) linktarget: String,
    /// The same, where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) linktarget_raw: Option<Base64>,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended_attributes: Vec<ExtendedAttribute>,
    /// Which device it is, for a device.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub device: u64,
    /// A file's pieces.
    #[serde(default)]
    pub content: Option<Vec<Id>>,
    /// A folder's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtree: Option<Id>,
}

/// A name and a value beside a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<Base64>,
}

impl ExtendedAttribute {
    /// One with a value.
    #[must_use]
    pub fn new(name: &[u8], value: Vec<u8>) -> Self {
        Self { name: String::from_utf8_lossy(name).into_owned(), value: Some(Base64(value)) }
    }
}

/// What is in a folder, in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Files, folders and the like.
    #[serde(deserialize_with = "or_none")]
    pub nodes: Vec<Node>,
}

impl Tree {
    /// As it is stored.
    ///
    /// # Errors
    /// Never, in fact: there is nothing in it that JSON cannot hold.
    pub fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        let mut json = serde_json::to_vec(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads what is stored. A name that leads elsewhere is an error: it is nothing that a folder can hold.
    ///
    /// # Errors
    /// When it is no tree.
    pub fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        let tree: Self = serde_json::from_slice(json)?;
        for node in &tree.nodes {
            let name = &node.name;
            let leads_elsewhere =
                name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0);
            anyhow::ensure!(!leads_elsewhere, "`{}` cannot be a name in a folder", name.escape_ascii());
        }
        Ok(tree)
    }

    /// The node of that name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Node> {
        // Other programs may sort otherwise.
        match self.nodes.binary_search_by(|node| node.name.as_slice().cmp(name)) {
            Ok(at) => Some(&self.nodes[at]),
            Err(_) => self.nodes.iter().find(|node| node.name == name),
        }
    }
}

impl Node {
    /// One without facts.
    #[must_use]
    pub fn new(name: Vec<u8>, kind: NodeKind) -> Self {
        Self {
            name,
            kind,
            go_mode: 0,
            mtime: epoch(),
            atime: epoch(),
            ctime: epoch(),
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            linktarget: String::new(),
            linktarget_raw: None,
            extended_attributes: Vec::new(),
            device: 0,
            content: None,
            subtree: None,
        }
    }

    /// Its name as a file system takes it.
    #[must_use]
    pub fn os_name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// Rights as Unix counts them: `0o7777` at most.
    #[must_use]
    pub fn mode(&self) -> u32 {
        let mut mode = self.go_mode & 0o777;
        for (go, unix) in GO_BITS {
            if self.go_mode & go != 0 {
                mode |= unix;
            }
        }
        mode
    }

    /// Sets rights, as Unix counts them.
    pub fn set_mode(&mut self, mode: u32) {
        let kind = match self.kind {
            NodeKind::Dir => 1 << 31,
            NodeKind::Symlink => 1 << 27,
            NodeKind::Dev => 1 << 26,
            NodeKind::CharDev => 1 << 26 | 1 << 21,
            NodeKind::Fifo => 1 << 25,
            NodeKind::Socket => 1 << 24,
            NodeKind::File | NodeKind::Irregular => 0,
        };
        self.go_mode = kind | mode & 0o777;
        for (go, unix) in GO_BITS {
            if mode & unix != 0 {
                self.go_mode |= go;
            }
        }
    }

    /// Where a symbolic link points.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.linktarget_raw.as_ref().map_or(self.linktarget.as_bytes(), |raw| &raw.0)
    }

    /// Says where a symbolic link points.
    pub fn set_target(&mut self, target: Vec<u8>) {
        self.linktarget = String::from_utf8_lossy(&target).into_owned();
        self.linktarget_raw = (self.linktarget.as_bytes() != target).then_some(Base64(target));
    }
}

/// Rights that Go counts elsewhere than Unix: set-uid, set-gid, sticky.
const GO_BITS: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];

/// A moment to the nanosecond, as a file system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

fn epoch() -> Moment {
    Moment { seconds: 0, nanoseconds: 0 }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The format knows the years 0 to 9999.
        let seconds = self.seconds.clamp(-62_167_219_200, 253_402_300_799);
        let time = DateTime::<Utc>::from_timestamp(seconds, self.nanoseconds).unwrap_or_default();
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?;
        // A leap second is told as a second with too many nanoseconds, which no file has.
        Ok(Self { seconds: time.timestamp(), nanoseconds: time.timestamp_subsec_nanos().min(999_999_999) })
    }
}

/// Bytes, in JSON as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

/// Names are written as Go quotes them: a name is bytes, and JSON holds text only.
mod quoted {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Cow;

    pub(super) fn serialize<Z: Serializer>(name: &[u8], serializer: Z) -> Result<Z::Ok, Z::Error> {
        serializer.serialize_str(&super::quote(name))
    }

    pub(super) fn deserialize<'de, Z: Deserializer<'de>>(deserializer: Z) -> Result<Vec<u8>, Z::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        super::unquote(&text).ok_or_else(|| Z::Error::custom(format!("`{text}` is no quoted name")))
    }
}

fn quote(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for piece in name.utf8_chunks() {
        for letter in piece.valid().chars() {
            match letter {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x0b' => text.push_str("\\v"),
                '\0'..=' ' | '\x7f' if letter != ' ' => text.push_str(&format!("\\x{:02x}", u32::from(letter))),
                '\u{80}'..='\u{9f}' | '\u{fffd}' | '\u{feff}' => {
                    text.push_str(&format!("\\u{:04x}", u32::from(letter)))
                }
                other => text.push(other),
            }
        }
        piece.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        name.extend_from_slice(&rest.as_bytes()[..at]);
        let mut letters = rest[at + 1..].chars();
        let kind = letters.next()?;
        rest = letters.as_str();
        let mut number = |digits: usize, radix: u32| -> Option<u32> {
            let value = u32::from_str_radix(rest.get(..digits)?, radix).ok()?;
            rest = &rest[digits..];
            Some(value)
        };
        match kind {
            'a' => name.push(7),
            'b' => name.push(8),
            'f' => name.push(12),
            'n' => name.push(b'\n'),
            'r' => name.push(b'\r'),
            't' => name.push(b'\t'),
            'v' => name.push(11),
            '\\' | '"' | '\'' => name.push(kind as u8),
            'x' => name.push(u8::try_from(number(2, 16)?).ok()?),
            'u' | 'U' => {
                let letter = char::from_u32(number(if kind == 'u' { 4 } else { 8 }, 16)?)?;
                name.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '0'..='7' => {
                let first = kind.to_digit(8)?;
                name.push(u8::try_from(first * 64 + number(2, 8)?).ok()?);
            }
            _ => return None,
        }
    }
    name.extend_from_slice(rest.as_bytes());
    Some(name)
}

fn or_none<'de, Z: Deserializer<'de>>(deserializer: Z) -> Result<Vec<Node>, Z::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero_32(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_come_back() {
        for byte in 1..=255_u8 {
            for name in [vec![byte], vec![b'a', byte, b'z'], vec![byte, byte, 0xc3, 0xa9]] {
                assert_eq!(unquote(&quote(&name)), Some(name));
            }
        }
        assert_eq!(quote(b"a\\b\"\n\xff\xc3\xa9"), "a\\\\b\\\"\\n\\xffé");
        assert_eq!(unquote("\\u00e9\\U0001f600\\101"), Some("é😀A".as_bytes().to_vec()));
        assert_eq!(unquote("\\"), None);
        assert_eq!(unquote("\\x4"), None);
    }

    #[test]
    fn rights_and_times_come_back() {
        for kind in [NodeKind::File, NodeKind::Dir, NodeKind::CharDev] {
            for mode in [0, 0o644, 0o7777, 0o4755, 0o1777] {
                let mut node = Node::new(b"x".to_vec(), kind);
                node.set_mode(mode);
                node.mtime = Moment { seconds: -5, nanoseconds: 120 };
                node.set_target(vec![0xff, b'a']);
                let tree = Tree { nodes: vec![node] };
                let read = Tree::from_json(&tree.to_json().unwrap()).unwrap();
                assert_eq!(read, tree);
                assert_eq!(read.nodes[0].mode(), mode);
                assert_eq!(read.nodes[0].target(), [0xff, b'a']);
            }
        }
        Tree::from_json(br#"{"nodes":[{"name":"..","type":"dir"}]}"#).unwrap_err();
        Tree::from_json(br#"{"nodes":[{"name":"a/b","type":"dir"}]}"#).unwrap_err();
        assert_eq!(Tree::from_json(br#"{"nodes":null}"#).unwrap(), Tree::default());
    }
}
