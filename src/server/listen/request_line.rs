//! Makes request targets that Go's server takes, and that people type, valid: `"`, `<` and `>` are
//! percent-encoded (`?query=up{job="a"}>0`).
//!
//! Bytes outside request lines must stay as they are, or a message would end elsewhere than its
//! sender believes. So messages are followed by their `Content-Length`; from the first one on
//! whose end is not as plain (chunked, HTTP/2, upgraded), the connection is left alone.

/// Bytes kept of a header line: enough for the names and numbers that matter.
const KEPT_BYTES_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// In a request line, after so many spaces.
    Line { spaces: usize },
    /// In the header lines.
    Headers,
    /// So many bytes of a body are still to come.
    Body(u64),
    /// Nothing is looked at any more.
    Opaque,
}

/// Where a connection stands in its messages.
#[derive(Debug)]
pub(super) struct RequestLines {
    state: State,
    /// Begin of the line so far, in lower case.
    line: Vec<u8>,
    line_bytes: usize,
    content_length: Option<u64>,
    is_plain: bool,
    is_http2: bool,
}

impl Default for RequestLines {
    fn default() -> Self {
        Self {
            state: State::Line { spaces: 0 },
            line: Vec::new(),
            line_bytes: 0,
            content_length: None,
            is_plain: true,
            is_http2: false,
        }
    }
}

impl RequestLines {
    /// What the bytes are to become; `None` when they stay as they are.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut changed: Option<Vec<u8>> = None;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match &mut self.state {
                State::Opaque => {
                    if let Some(out) = &mut changed {
                        out.extend_from_slice(&bytes[at..]);
                    }
                    return changed;
                }
                State::Body(left) => {
                    let taken =
                        (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.begin_message();
                    }
                    if let Some(out) = &mut changed {
                        out.extend_from_slice(&bytes[at..at + taken]);
                    }
                    at += taken;
                    continue;
                }
                State::Line { spaces: 1 } if matches!(byte, b'"' | b'<' | b'>') => {
                    let out = changed.get_or_insert_with(|| bytes[..at].to_vec());
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                    at += 1;
                    continue;
                }
                State::Line { .. } | State::Headers => self.head_byte(byte),
            }
            if let Some(out) = &mut changed {
                out.push(byte);
            }
            at += 1;
        }
        changed
    }

    /// Whether the connection began to speak HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.is_http2
    }

    fn begin_message(&mut self) {
        *self = Self {
            is_plain: self.is_plain,
            line: std::mem::take(&mut self.line),
            ..Self::default()
        };
        self.line.clear();
    }

    fn head_byte(&mut self, byte: u8) {
        if byte == b'\n' {
            return self.end_line();
        }
        if let State::Line { spaces } = &mut self.state
            && byte == b' '
        {
            *spaces += 1;
        }
        self.line_bytes += 1;
        if self.line.len() < KEPT_BYTES_MAX {
            self.line.push(byte.to_ascii_lowercase());
        }
    }

    fn end_line(&mut self) {
        let is_whole = self.line_bytes == self.line.len();
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        match self.state {
            // Empty lines may stand before a request.
            State::Line { .. } if text.is_empty() => {}
            State::Line { .. } => {
                self.is_http2 |= text.starts_with(b"pri ");
                self.is_plain &= !self.is_http2;
                self.state = State::Headers;
            }
            _ if text.is_empty() => self.end_headers(),
            _ => self.header(text, is_whole),
        }
        self.line_bytes = 0;
    }

    fn header(&mut self, text: &[u8], is_whole: bool) {
        let colon = text.iter().position(|byte| *byte == b':');
        let name = colon.map_or(text, |at| &text[..at]);
        if name != name.trim_ascii() {
            self.is_plain = false;
        }
        match name.trim_ascii() {
            b"content-length" => {
                let value = text[name.len()..].strip_prefix(b":").unwrap_or_default().trim_ascii();
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.is_plain &= is_whole && digits && self.content_length.is_none();
                self.content_length = number;
            }
            b"transfer-encoding" | b"upgrade" => self.is_plain = false,
            _ => {}
        }
    }

    fn end_headers(&mut self) {
        match self.content_length {
            _ if !self.is_plain => self.state = State::Opaque,
            None | Some(0) => self.begin_message(),
            Some(bytes) => self.state = State::Body(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when the bytes come in parts of this length.
    fn scanned(input: &str, part_bytes: usize) -> String {
        let (mut lines, mut out) = (RequestLines::default(), Vec::new());
        for part in input.as_bytes().chunks(part_bytes) {
            out.extend(lines.scan(part).unwrap_or_else(|| part.to_vec()));
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_targets_of_requests_change() {
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nX-A: \"<\"\r\n\r\n");
        let (raw, encoded) = ("/q?query=up{a=\"b\"}<1>0", "/q?query=up{a=%22b%22}%3C1%3E0");
        let body = "{\"GET <\": \"x\"}\r\n";
        let post = |target: &str| {
            format!("POST {target} HTTP/1.1\r\ncontent-LENGTH: {}\r\n\r\n{body}", body.len())
        };
        let chunked = "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n";
        let twice = "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
        let spaced = "POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\n";
        let http2 = "PRI * HTTP/2.0\r\n\r\n";
        for (input, output) in [
            (get(raw), get(encoded)),
            (
                format!("\r\n{}{}", get(raw), get(raw)),
                format!("\r\n{}{}", get(encoded), get(encoded)),
            ),
            (post(raw) + &get(raw), post(encoded) + &get(encoded)),
            (chunked.to_owned() + &get(raw), chunked.to_owned() + &get(raw)),
            (twice.to_owned() + &get(raw), twice.to_owned() + &get(raw)),
            (spaced.to_owned() + &get(raw), spaced.to_owned() + &get(raw)),
            (http2.to_owned() + &get(raw), http2.to_owned() + &get(raw)),
        ] {
            for part_bytes in [1, 3, 7, input.len()] {
                assert_eq!(scanned(&input, part_bytes), output);
            }
        }
        let mut lines = RequestLines::default();
        assert_eq!(lines.scan(get("/").as_bytes()), None);
        assert!(!lines.is_http2());
        lines.scan(http2.as_bytes());
        assert!(lines.is_http2());
    }
}
