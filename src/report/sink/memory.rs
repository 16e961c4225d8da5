//! Log lines kept in memory, for tests that look at them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Batch, Sink};
use crate::report::Level;

/// Keeps every line; its [`MemoryLines`] reads them.
#[derive(Debug)]
pub struct Memory(Arc<Shared>);

/// The lines that a [`Memory`] took.
#[derive(Debug, Clone)]
pub struct MemoryLines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<(Level, String)>>,
    grown: Condvar,
}

impl Memory {
    /// A sink and its reader.
    pub fn new() -> (Memory, MemoryLines) {
        let shared = Arc::new(Shared::default());
        (Memory(shared.clone()), MemoryLines(shared))
    }
}

impl Sink for Memory {
    fn write(&mut self, batch: &Batch) {
        self.0.lines.lock().extend(batch.lines().map(|(level, line)| (level, line.to_owned())));
        self.0.grown.notify_all();
    }
}

impl MemoryLines {
    /// All lines so far; call [`Logger::flush`](crate::report::Logger::flush) before.
    pub fn all(&self) -> Vec<(Level, String)> {
        self.0.lines.lock().clone()
    }

    /// Waits for a line that holds `part`, and returns it; none when none came within `patience`.
    pub fn wait_for(&self, part: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut lines = self.0.lines.lock();
        loop {
            if let Some((_, line)) = lines.iter().find(|(_, line)| line.contains(part)) {
                return Some(line.clone());
            }
            if self.0.grown.wait_until(&mut lines, deadline).timed_out() {
                return None;
            }
        }
    }
}
