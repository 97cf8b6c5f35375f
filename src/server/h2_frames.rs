//! What a client's HTTP/2 frames ask of us, counted where they come in: the library answers or skips frames that carry
//! nothing without end, so a flood of them costs processor time for as long as it lasts.
//!
//! A connection has a budget of [`CAPACITY`] frames that carry nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown
//! ones, DATA and CONTINUATION without content. It grows with time and with what is sent to the client, because window
//! updates come with the bytes they acknowledge. A cancelled request (RST_STREAM) costs more: it may have reached an
//! upstream (rapid reset, CVE-2023-44487). Beyond the budget the connection is closed.
//!
//! What the `h2` crate itself bounds is not counted again: resets of requests not yet begun, its own resets for what a
//! client does wrong (CVE-2025-8671), CONTINUATION frames of one header block (CVE-2024-27316), small DATA frames that
//! wait to be read, the decoded size of a header block.

/// Frames that carry nothing a client may send at once.
pub const CAPACITY: u32 = 2000;
/// Added to the budget for each tick of the worker (250 ms), up to [`CAPACITY`].
const PER_TICK: u32 = 10;
/// What one cancelled request costs: 400 at once, then 8 a second.
const CANCELLED: u32 = 5;
/// Bytes sent that earn one frame. More than the answer to any frame that is counted, so that answers do not pay for it.
const BYTES_PER_FRAME: usize = 40;
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, which the library checks.
const PREFACE: usize = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// More frames that carry nothing than the budget allows.
    Flood,
    /// The first frame is not SETTINGS (RFC 9113 section 3.4), which the library does not mind.
    NotHttp2,
}

#[derive(Debug)]
enum Step {
    Preface(usize),
    /// So many bytes of a frame's head have come.
    Head(usize),
    /// The first byte of a padded DATA frame, which tells how much of its `len` is padding.
    Padding {
        len: usize,
    },
    /// So many bytes of a frame are left to skip.
    Payload(usize),
}

#[derive(Debug)]
pub struct FrameWatch {
    step: Step,
    head: [u8; HEAD],
    budget: u32,
    tick: u32,
    /// Bytes sent that have not earned a frame yet.
    earned: usize,
    settled: bool,
    block_open: bool,
}

impl FrameWatch {
    pub fn new(tick: u32) -> Self {
        Self {
            step: Step::Preface(0),
            head: [0; HEAD],
            budget: CAPACITY,
            tick,
            earned: 0,
            settled: false,
            block_open: false,
        }
    }

    /// Looks at bytes as they come in. After [`Verdict::Flood`] nothing more should be read.
    pub fn feed(&mut self, mut bytes: &[u8], tick: u32) -> Verdict {
        if tick != self.tick {
            let passed = tick.wrapping_sub(self.tick);
            self.budget = self.budget.saturating_add(passed.saturating_mul(PER_TICK)).min(CAPACITY);
            self.tick = tick;
        }
        while let Some(first) = bytes.first() {
            let taken = match self.step {
                Step::Preface(seen) => {
                    let taken = bytes.len().min(PREFACE - seen);
                    self.step = if seen + taken == PREFACE { Step::Head(0) } else { Step::Preface(seen + taken) };
                    taken
                }
                Step::Head(seen) => {
                    let taken = bytes.len().min(HEAD - seen);
                    self.head[seen..seen + taken].copy_from_slice(&bytes[..taken]);
                    self.step = Step::Head(seen + taken);
                    if seen + taken == HEAD {
                        match self.begin_frame() {
                            Verdict::Fine => {}
                            unfit => return unfit,
                        }
                    }
                    taken
                }
                Step::Padding { len } => {
                    if usize::from(*first) + 1 >= len && self.spend(1) == Verdict::Flood {
                        return Verdict::Flood;
                    }
                    self.step = after(len - 1);
                    1
                }
                Step::Payload(left) => {
                    let taken = bytes.len().min(left);
                    self.step = after(left - taken);
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
        Verdict::Fine
    }

    /// Bytes that were sent to the client: it may answer them with window updates.
    pub fn sent(&mut self, bytes: usize) {
        let earned = self.earned + bytes;
        self.earned = earned % BYTES_PER_FRAME;
        let frames = u32::try_from(earned / BYTES_PER_FRAME).unwrap_or(u32::MAX);
        self.budget = self.budget.saturating_add(frames).min(CAPACITY);
    }

    /// The client has begun its first frame: it speaks HTTP/2.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// A header block has begun and not ended: nothing else can come on this connection before it ends.
    pub fn is_block_open(&self) -> bool {
        self.block_open
    }

    /// A frame's head is whole: prices it.
    fn begin_frame(&mut self) -> Verdict {
        let [a, b, c, kind, flags, ..] = self.head;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if !self.settled && (kind != SETTINGS || flags & ACK != 0) {
            return Verdict::NotHttp2;
        }
        self.settled = true;
        self.step = after(len);
        match kind {
            DATA if flags & END_STREAM != 0 => Verdict::Fine,
            DATA if len == 0 => self.spend(1),
            DATA if flags & PADDED != 0 => {
                self.step = Step::Padding { len };
                Verdict::Fine
            }
            DATA => Verdict::Fine,
            HEADERS | CONTINUATION => {
                self.block_open = flags & END_HEADERS == 0;
                if len > 0 { Verdict::Fine } else { self.spend(1) }
            }
            RST_STREAM => self.spend(CANCELLED),
            _ => self.spend(1),
        }
    }

    fn spend(&mut self, cost: u32) -> Verdict {
        match self.budget.checked_sub(cost) {
            Some(left) => {
                self.budget = left;
                Verdict::Fine
            }
            None => Verdict::Flood,
        }
    }
}

fn after(left: usize) -> Step {
    if left == 0 { Step::Head(0) } else { Step::Payload(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn watch() -> FrameWatch {
        let mut watch = FrameWatch::new(0);
        assert_eq!(watch.feed(&[&[b'P'; PREFACE][..], &frame(SETTINGS, 0, &[])].concat(), 0), Verdict::Fine);
        FrameWatch { budget: CAPACITY, ..watch }
    }

    /// How many such frames pass before the flood is called.
    fn pass(watch: &mut FrameWatch, bytes: &[u8]) -> u32 {
        (0..100_000).take_while(|_| watch.feed(bytes, 0) == Verdict::Fine).count().try_into().unwrap()
    }

    #[test]
    fn frames_that_carry_nothing_are_bounded() {
        for (kind, flags, payload) in [
            (6, 0, &[0; 8][..]),
            (4, 0, &[]),
            (2, 0, &[0; 5]),
            (8, 0, &[0, 0, 0, 1]),
            (0xbe, 0, b"unknown"),
            (DATA, 0, b""),
            (DATA, PADDED, &[0]),
            (DATA, PADDED, &[3, 0, 0, 0]),
            (CONTINUATION, 0, b""),
        ] {
            assert_eq!(pass(&mut watch(), &frame(kind, flags, payload)), CAPACITY, "{kind} {payload:?}");
        }
        assert_eq!(pass(&mut watch(), &frame(RST_STREAM, 0, &[0; 4])), CAPACITY / CANCELLED);
    }

    #[test]
    fn frames_that_carry_something_are_not() {
        for (kind, flags, payload) in [
            (DATA, 0, &b"x"[..]),
            (DATA, END_STREAM, b""),
            (DATA, PADDED, &[2, b'x', 0, 0]),
            (HEADERS, END_HEADERS, b"x"),
        ] {
            assert_eq!(pass(&mut watch(), &frame(kind, flags, payload)), 100_000, "{kind} {payload:?}");
        }
    }

    #[test]
    fn the_budget_grows_with_time_and_with_what_is_sent() {
        let ping = frame(6, 0, &[0; 8]);
        let spent = || FrameWatch { budget: 0, ..watch() };
        let mut later = spent();
        assert_eq!(later.feed(&[], 3), Verdict::Fine);
        assert_eq!(later.budget, 3 * PER_TICK);
        let mut earns = spent();
        for _ in 0..100 {
            earns.sent(BYTES_PER_FRAME / 2);
        }
        assert_eq!(pass(&mut earns, &ping), 50);
        let mut full = spent();
        full.sent(usize::MAX / 2);
        assert_eq!(pass(&mut full, &ping), CAPACITY);
    }

    #[test]
    fn the_answer_to_a_ping_does_not_pay_for_it() {
        let mut w = watch();
        let ping = frame(6, 0, &[0; 8]);
        let flood = (0..100_000).position(|_| {
            w.sent(ping.len());
            w.feed(&ping, 0) == Verdict::Flood
        });
        assert!(flood.is_some_and(|n| n < 2 * CAPACITY as usize), "{flood:?}");
    }

    #[test]
    fn an_open_header_block_is_seen_to_begin_and_to_end() {
        let mut w = FrameWatch::new(0);
        w.feed(&[b'P'; PREFACE], 0);
        assert!(!w.is_settled());
        assert_eq!(w.feed(&frame(SETTINGS, 0, &[]), 0), Verdict::Fine);
        assert!(w.is_settled() && !w.is_block_open());
        w.feed(&frame(HEADERS, 0, b"x"), 0);
        assert!(w.is_block_open());
        w.feed(&frame(CONTINUATION, END_HEADERS, b"y"), 0);
        assert!(!w.is_block_open());
    }

    #[test]
    fn settings_come_first() {
        for first in [frame(6, 0, &[0; 8]), frame(SETTINGS, ACK, &[]), frame(HEADERS, END_HEADERS, b"x")] {
            assert_eq!(FrameWatch::new(0).feed(&[&[b'P'; PREFACE][..], &first].concat(), 0), Verdict::NotHttp2);
        }
    }

    proptest::proptest! {
        /// Whatever comes, in whatever pieces: no panic, one outcome.
        #[test]
        fn the_outcome_does_not_depend_on_the_pieces(
            tail in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..400),
            cuts in proptest::collection::vec(0_usize..400, 0..8),
        ) {
            let bytes = [&[b'P'; PREFACE][..], &frame(SETTINGS, 0, &[]), &tail].concat();
            let mut whole = FrameWatch::new(0);
            whole.feed(&bytes, 0);
            let mut pieces = FrameWatch::new(0);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                pieces.feed(&bytes[pair[0]..pair[1]], 0);
            }
            proptest::prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
