//! Bytes of a command's output into lines, in bounded memory.

/// The longest line that is kept; what follows up to the line's end is counted and dropped.
const LONGEST: usize = 16 << 10;

/// Splits a stream of bytes into lines. A carriage return begins the line anew, as on a terminal: of a progress bar
/// drawn a thousand times only the last state is a line.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    dropped: usize,
    returned: bool,
}

impl Lines {
    /// Takes the next bytes and hands out each line that they end.
    pub fn push(&mut self, mut bytes: &[u8], on_line: &mut impl FnMut(&str)) {
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&bytes[..at]);
            if bytes[at] == b'\n' {
                self.emit(on_line);
            } else {
                self.returned = true;
            }
            bytes = &bytes[at + 1..];
        }
        self.extend(bytes);
    }

    /// Hands out what is left when the output ends without a line break.
    pub fn finish(&mut self, on_line: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.emit(on_line);
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.returned) {
            self.line.clear();
            self.dropped = 0;
        }
        let room = LONGEST - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.dropped += bytes.len().saturating_sub(room);
    }

    fn emit(&mut self, on_line: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        if self.dropped > 0 {
            on_line(&format!("{text}… {} bytes more", self.dropped));
        } else {
            on_line(&text);
        }
        self.line.clear();
        self.dropped = 0;
        self.returned = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        let mut on_line = |line: &str| all.push(line.to_owned());
        for piece in pieces {
            lines.push(piece, &mut on_line);
        }
        lines.finish(&mut on_line);
        all
    }

    #[test]
    fn lines_are_whole_however_the_bytes_arrive() {
        assert_eq!(lines(&[b"on", b"e\ntw", b"o\r", b"\n\nlast"]), ["one", "two", "", "last"]);
        assert_eq!(lines(&[b"\xff\n"]), ["\u{fffd}"]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn of_a_progress_bar_the_last_state_is_the_line() {
        assert_eq!(lines(&[b"10 %\r50 %\r", b"100 %\n"]), ["100 %"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let endless = vec![b'x'; LONGEST];
        let all = lines(&[&endless, &endless, b"\nnext\n"]);
        assert_eq!(all.len(), 2);
        assert!(all[0].ends_with("x… 16384 bytes more"));
        assert_eq!(all[1], "next");
    }
}
