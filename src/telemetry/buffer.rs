//! Lines waiting on the thread that made them, handed to their sink in large pieces.
//!
//! A worker logs into its own buffers and flushes them at its tick, so that a request costs neither a lock nor a
//! system call nor, mostly, an allocation.

use std::cell::RefCell;
use std::sync::Arc;

use super::sink::Sink;

/// Handed over without waiting for the tick. Waking the writer costs as much as making some ten lines.
const FULL: usize = 128 << 10;

thread_local! {
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers(Vec::new())) };
}

struct Buffers(Vec<Buffer>);

struct Buffer {
    sink: Arc<Sink>,
    lines: Vec<u8>,
    count: u64,
    /// Nothing came since the flush before.
    idle: bool,
}

impl Buffer {
    fn hand_over(&mut self) {
        if self.count > 0 {
            self.sink.send(std::mem::take(&mut self.lines), self.count);
            self.lines = self.sink.spare();
            self.count = 0;
        }
    }
}

impl Drop for Buffers {
    /// The thread ends: nothing it logged is lost.
    fn drop(&mut self) {
        self.0.iter_mut().for_each(Buffer::hand_over);
    }
}

/// Adds one line, which `encode` appends.
pub fn write(sink: &Arc<Sink>, encode: impl FnOnce(&mut Vec<u8>)) {
    let _ = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        let index = match buffers.0.iter().position(|b| Arc::ptr_eq(&b.sink, sink)) {
            Some(index) => index,
            None => {
                buffers.0.push(Buffer { sink: Arc::clone(sink), lines: Vec::new(), count: 0, idle: false });
                buffers.0.len() - 1
            }
        };
        let Some(buffer) = buffers.0.get_mut(index) else { return };
        encode(&mut buffer.lines);
        buffer.count += 1;
        buffer.idle = false;
        if buffer.lines.len() >= FULL {
            buffer.hand_over();
        }
    });
}

/// Hands over what this thread has. To be called every fraction of a second and at the end.
pub fn flush() {
    let _ = BUFFERS.try_with(|buffers| {
        // Two flushes without a line: the sink may be one that no configuration names any more.
        buffers.borrow_mut().0.retain_mut(|buffer| {
            buffer.hand_over();
            !std::mem::replace(&mut buffer.idle, true)
        });
    });
}
