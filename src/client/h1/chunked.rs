//! The chunked transfer coding (RFC 9112 section 7.1), read strictly: what two readers could take in two ways is an error.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Most bytes of chunk extensions, and of trailers, in one body.
const MAX_ASIDE: usize = 16 << 10;
const MAX_TRAILERS: usize = 64;

#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of the current chunk still to come.
    left: u64,
    digits: u8,
    /// Bytes of extensions and of spaces before them so far.
    extensions: usize,
    /// Trailer lines so far, as they came.
    trailers: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// Spaces after the size.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes of the input are content.
    Data(Range<usize>),
    /// The input is used up.
    More,
    /// The body is whole.
    End,
}

impl Chunked {
    /// Goes on in `input` from `at`, which is moved behind what was read.
    pub fn step(&mut self, input: &[u8], at: &mut usize) -> Result<Step, &'static str> {
        while self.state != State::Done {
            let Some(&byte) = input.get(*at) else { return Ok(Step::More) };
            if self.state == State::Data {
                let room = (input.len() - *at) as u64;
                // No more than what is in the input, so it fits.
                let taken = usize::try_from(self.left.min(room)).unwrap_or(0);
                let start = *at;
                *at += taken;
                self.left -= taken as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Step::Data(start..start + taken));
            }
            *at += 1;
            self.take(byte)?;
        }
        Ok(Step::End)
    }

    fn take(&mut self, byte: u8) -> Result<(), &'static str> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digits += 1;
                if self.digits > 15 {
                    return Err("a chunk's size has too many digits");
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.left = self.left << 4 | u64::from(digit);
                State::Size
            }
            (State::Size, _) if self.digits == 0 => return Err("a chunk has no size"),
            (State::Size | State::Blank | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::Blank, b' ' | b'\t') => self.aside(State::Blank)?,
            (State::Size | State::Blank, b';') => State::Extension,
            (State::Size | State::Blank, _) => return Err("a chunk's size is not hexadecimal"),
            (State::Extension, b'\n') => return Err("a bare line feed in a chunk extension"),
            (State::Extension, _) => self.aside(State::Extension)?,
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.left == 0 { State::Trailers } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Trailers, _) => return self.trailer(byte),
            _ => return Err("a chunk does not end where it should"),
        };
        Ok(())
    }

    fn aside(&mut self, state: State) -> Result<State, &'static str> {
        self.extensions += 1;
        if self.extensions > MAX_ASIDE { Err("chunk extensions are too long") } else { Ok(state) }
    }

    fn trailer(&mut self, byte: u8) -> Result<(), &'static str> {
        self.trailers.push(byte);
        if self.trailers.len() > MAX_ASIDE {
            return Err("trailers are too long");
        }
        if byte == b'\n' {
            let lines = self.trailers.as_slice();
            if !lines.ends_with(b"\r\n") {
                return Err("a bare line feed in trailers");
            }
            if lines == b"\r\n" || lines.ends_with(b"\r\n\r\n") {
                self.state = State::Done;
            }
        }
        Ok(())
    }

    /// True between the content of a chunk and the line end behind it.
    pub fn is_at_chunk_end(&self) -> bool {
        self.state == State::DataCr
    }

    /// The trailers of a whole body; `None` when there are none.
    pub fn trailers(&mut self) -> Result<Option<HeaderMap>, &'static str> {
        const WRONG: &str = "trailers are not header fields";
        let lines = std::mem::take(&mut self.trailers);
        let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&lines, &mut fields) else {
            return Err(WRONG);
        };
        if fields.is_empty() {
            return Ok(None);
        }
        let mut map = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| WRONG)?;
            map.append(name, HeaderValue::from_bytes(field.value).map_err(|_| WRONG)?);
        }
        Ok(Some(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content and end, with the input cut at the given places.
    fn read(input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Option<usize>, Option<HeaderMap>), &'static str> {
        let (mut chunked, mut content, mut from) = (Chunked::default(), Vec::new(), 0);
        for to in cuts.iter().copied().chain([input.len()]) {
            let part = &input[from.min(to)..to];
            let mut at = 0;
            loop {
                match chunked.step(part, &mut at)? {
                    Step::Data(range) => content.extend_from_slice(&part[range]),
                    Step::More => break,
                    Step::End => return Ok((content, Some(from + at), chunked.trailers()?)),
                }
            }
            from = to;
        }
        Ok((content, None, None))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_read_however_they_are_cut() {
        let body = b"4\r\nWiki\r\n0A ;a=\"b\"\r\npedia in c\r\n5;x\r\nhunks\r\n0\r\nX-Sum: 6\r\nX-Sum: 7\r\n\r\nnext";
        for cut in 0..body.len() {
            let (content, end, trailers) = read(body, &[cut, (cut + 3).min(body.len())]).unwrap();
            assert_eq!(content, b"Wikipedia in chunks", "{cut}");
            assert_eq!(&body[end.unwrap()..], b"next", "{cut}");
            assert_eq!(trailers.unwrap().get_all("x-sum").iter().count(), 2);
        }
        assert_eq!(read(b"0\r\n\r\n", &[]).unwrap(), (vec![], Some(5), None));
        assert_eq!(read(b"3\r\nab", &[]).unwrap(), (b"ab".to_vec(), None, None));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_an_error() {
        for body in [
            &b"\r\n"[..],
            b"-1\r\n",
            b"0x4\r\n",
            b"4 4\r\nWiki\r\n0\r\n\r\n",
            b"4 \nWiki\r\n0\r\n\r\n",
            b"4\nWiki\r\n0\r\n\r\n",
            b"4\r\nWikiX\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"4;a\nb\r\n",
            b"1000000000000000\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n: 1\r\n\r\n",
        ] {
            assert!(read(body, &[]).is_err(), "{:?}", String::from_utf8_lossy(body));
        }
        let long = [&b"4;"[..], &vec![b'x'; MAX_ASIDE + 1]].concat();
        assert!(read(&long, &[]).is_err());
        let long = [&b"0\r\n"[..], &vec![b'x'; MAX_ASIDE + 1]].concat();
        assert!(read(&long, &[]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_cuts_change_nothing() {
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..20_000 {
            let input: Vec<u8> = (0..rng.usize(..40)).map(|_| *rng.choice(b"01aF;\r\n\r\nx: ").unwrap()).collect();
            let cut = rng.usize(..=input.len());
            assert_eq!(read(&input, &[cut]), read(&input, &[]), "{:?}", String::from_utf8_lossy(&input));
        }
    }
}
