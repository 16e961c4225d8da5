//! Tasks that must run as long as the daemon. None of them ends unnoticed.

use crate::report::Logger;
use std::any::Any;
use std::future::Future;
use std::panic::PanicHookInfo;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A task that panicked is started again after this time, which doubles each time, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Runs tasks, and notices when one ends.
pub struct Supervisor {
    log: Logger,
    tasks: JoinSet<()>,
    alarm: mpsc::UnboundedSender<&'static str>,
    alarms: mpsc::UnboundedReceiver<&'static str>,
}

/// A task without which the daemon cannot go on has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error: {0} ended; the daemon cannot go on, and stops")]
pub struct TaskEnded(&'static str);

/// Reports a task that ends in any other way than [`Watched::done`].
pub(super) struct Watched {
    name: &'static str,
    alarm: Option<mpsc::UnboundedSender<&'static str>>,
}

impl Supervisor {
    pub fn new(log: &Logger) -> Supervisor {
        let (alarm, alarms) = mpsc::unbounded_channel();
        Supervisor { log: log.clone(), tasks: JoinSet::new(), alarm, alarms }
    }

    /// A task that is started again if it panics. `name` for the log, such as "the sweep of silent instances".
    pub fn restarting<F>(&mut self, name: &'static str, start: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let log = self.log.clone();
        self.tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while !run(start()).await {
                log.error(format_args!(
                    "internal error: {name} panicked; it is started again in {} s",
                    pause.as_secs()
                ));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        });
    }

    /// A task without which the daemon cannot go on.
    pub fn essential(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watched = self.watch(name);
        self.tasks.spawn(async move {
            let _watched = watched;
            task.await;
        });
    }

    /// For an essential task that somebody else runs.
    pub(super) fn watch(&self, name: &'static str) -> Watched {
        Watched { name, alarm: Some(self.alarm.clone()) }
    }

    /// Resolves when an essential task has ended.
    pub async fn failure(&mut self) -> TaskEnded {
        match self.alarms.recv().await {
            Some(name) => TaskEnded(name),
            // There is one sender here.
            None => std::future::pending().await,
        }
    }

    /// Ends all tasks.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Watched {
    /// The task has ended as it should.
    pub fn done(mut self) {
        self.alarm = None;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(alarm) = &self.alarm {
            let _ = alarm.send(self.name);
        }
    }
}

/// False if it panicked. Dropping the future aborts the task.
async fn run(task: impl Future<Output = ()> + Send + 'static) -> bool {
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    !matches!(tasks.join_next().await, Some(Err(error)) if error.is_panic())
}

/// Writes a line to the log for each panic, wherever it is.
pub fn log_panics(log: &Logger) {
    let (log, print) = (log.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        log.error(describe(panic));
        print(panic);
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    format!("internal error: panic{place}: {}", words_of(panic.payload()))
}

fn words_of(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Level;
    use crate::report::sink::memory::Memory;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_logged_and_started_again() {
        let (sink, written) = Memory::new();
        let log = Logger::start(Level::Info, Box::new(sink)).unwrap();
        let mut supervisor = Supervisor::new(&log);
        let (starts, third) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (counted, reached) = (starts.clone(), third.clone());
        supervisor.restarting("the test", move || {
            let (number, reached) = (counted.fetch_add(1, Ordering::Relaxed), reached.clone());
            async move {
                assert!(number >= 2, "a fault");
                reached.notify_one();
                std::future::pending::<()>().await;
            }
        });
        third.notified().await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert!(log.flush(Duration::from_secs(20)));
        let lines: Vec<_> = written.all().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains("the test panicked; it is started again in 2 s"), "{lines:?}");
        supervisor.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_by_itself_is_not_started_again() {
        let mut supervisor = Supervisor::new(&Logger::silent());
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        supervisor.restarting("the test", move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async {}
        });
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(starts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_end_of_an_essential_task_is_noticed_whatever_way_it_ends() {
        for (name, panics) in [("the reloads", true), ("the reloads", false)] {
            let mut supervisor = Supervisor::new(&Logger::silent());
            supervisor.essential("another", std::future::pending());
            supervisor.watch("a third").done();
            supervisor.essential(name, async move { assert!(!panics, "a fault") });
            assert_eq!(supervisor.failure().await, TaskEnded(name));
        }
    }
}
