//! The hand-over of accepted messages to the ledger's writer, in many of the orders in which threads can get there: the
//! program's own queue, with [shuttle](https://docs.rs/shuttle)'s locks instead of its own.
//!
//! A wait that nothing ends is a deadlock here, and found: the writer's patience with an empty queue never ends by itself.

use self::queue::{Awaited, ENOUGH, Patience, Queue};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::mpsc;
use shuttle::{future, thread};
use std::sync::Arc;
use std::time::Duration;

/// The face of parking_lot and tokio, as far as the queue uses it.
mod sync {
    use shuttle::rand::Rng;
    use std::ops::{Deref, DerefMut};
    use std::time::{Duration, Instant};

    pub use tokio::sync::Notify;

    #[derive(Debug)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);
    #[derive(Debug)]
    pub struct Condvar(shuttle::sync::Condvar);
    /// Empty only while it waits.
    pub struct Guard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>, &'a Mutex<T>);
    pub struct TimedOut(bool);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> Guard<'_, T> {
            Guard(Some(self.0.lock().unwrap()), self)
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    impl TimedOut {
        pub fn timed_out(&self) -> bool {
            self.0
        }
    }

    impl Condvar {
        pub fn new() -> Self {
            Condvar(shuttle::sync::Condvar::new())
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// Until it is woken.
        pub fn wait_for<T>(&self, guard: &mut Guard<'_, T>, _: Duration) {
            guard.0 = guard.0.take().map(|guard| self.0.wait(guard).unwrap());
        }

        /// Others run; then the time is over, or it is not.
        pub fn wait_until<T>(&self, guard: &mut Guard<'_, T>, _: Instant) -> TimedOut {
            drop(guard.0.take());
            shuttle::thread::yield_now();
            guard.0 = Some(guard.1.0.lock().unwrap());
            TimedOut(shuttle::rand::thread_rng().gen_bool(0.5))
        }
    }
}

#[allow(dead_code, reason = "what the program uses of it besides")]
#[path = "../src/ledger/local/journal/queue.rs"]
mod queue;

struct Job {
    from: usize,
    number: usize,
    done: Option<mpsc::Sender<()>>,
}

impl Awaited for Job {
    fn is_awaited(&self) -> bool {
        self.done.is_some()
    }
}

const SENDERS: usize = 3;
const MESSAGES: usize = 3;
/// So few have room that senders wait for it.
const MOST: usize = 2;

fn patience() -> Patience {
    Patience { idle: Duration::from_secs(1), linger: Duration::from_millis(10), enough: ENOUGH }
}

/// Takes until the queue is closed, as the program's writer does; gives what it took.
fn write(queue: &Queue<Job>) -> Vec<(usize, usize)> {
    let (mut jobs, mut written) = (Vec::new(), Vec::new());
    loop {
        let closing = queue.take(&mut jobs, patience());
        for job in jobs.drain(..) {
            written.push((job.from, job.number));
            if let Some(done) = job.done {
                let _ = done.send(());
            }
        }
        if closing {
            return written;
        }
    }
}

/// Sends its messages, every other one without waiting for it; gives how many were taken.
fn send(queue: &Queue<Job>, from: usize) -> usize {
    for number in 0..MESSAGES {
        if !queue.has_room() {
            future::block_on(queue.room());
        }
        let (done, is_done) = mpsc::channel();
        let waits = (from + number).is_multiple_of(2);
        if queue.push(Job { from, number, done: waits.then_some(done) }).is_err() {
            return number;
        }
        if waits {
            is_done.recv().expect("it was taken, so it is written, and said so");
        }
    }
    MESSAGES
}

/// Whoever waits is answered; what was taken is written once, each sender's in its order; what was not is not.
fn everything_taken_is_written_once(close_early: bool) {
    let queue = Arc::new(Queue::<Job>::new(MOST));
    let writer = thread::spawn({
        let queue = queue.clone();
        move || write(&queue)
    });
    let taken = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|from| {
            let (queue, taken) = (queue.clone(), taken.clone());
            thread::spawn(move || {
                let sent = send(&queue, from);
                taken.fetch_add(sent, Ordering::SeqCst);
                sent
            })
        })
        .collect();
    if close_early {
        queue.close();
    }
    let sent: Vec<usize> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    queue.close();
    let written = writer.join().unwrap();
    assert_eq!(written.len(), taken.load(Ordering::SeqCst));
    for (from, &sent) in sent.iter().enumerate() {
        let of_sender: Vec<usize> = written.iter().filter(|(who, _)| *who == from).map(|(_, number)| *number).collect();
        assert_eq!(of_sender, (0..sent).collect::<Vec<_>>());
        assert!(close_early || sent == MESSAGES);
    }
}

fn in_many_orders(orders: usize) {
    for close_early in [false, true] {
        shuttle::check_random(move || everything_taken_is_written_once(close_early), orders);
        shuttle::check_pct(move || everything_taken_is_written_once(close_early), orders, 3);
    }
}

#[test]
fn in_a_thousand_orders() {
    in_many_orders(250);
}

#[test]
#[ignore = "takes a minute: for releases"]
fn in_a_hundred_thousand_orders() {
    in_many_orders(25_000);
}
