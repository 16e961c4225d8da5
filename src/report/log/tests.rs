use super::*;
use crate::report::sink::memory::Memory;
use std::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

fn lines(number: impl IntoIterator<Item = usize>) -> Vec<String> {
    number.into_iter().map(|number| format!("line {number}")).collect()
}

/// Takes nothing until it is told to.
struct Stuck<S> {
    entered: mpsc::Sender<()>,
    open: mpsc::Receiver<()>,
    then: S,
}

impl<S: Sink> Sink for Stuck<S> {
    fn write(&mut self, batch: &Batch) {
        let _ = self.entered.send(());
        let _ = self.open.recv_timeout(PATIENCE);
        self.then.write(batch);
    }
}

#[test]
fn lines_of_many_threads_arrive_each_thread_in_its_order() {
    let (sink, written) = Memory::new();
    let logger = Logger::start(Level::Info, Box::new(sink)).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let logger = logger.clone();
            scope.spawn(move || {
                for number in 0..1000 {
                    logger.write(Level::Info, LogLine::event("t").field("writer", writer).field("n", number));
                }
            });
        }
    });
    assert!(logger.flush(PATIENCE));
    let all = written.all();
    assert_eq!(all.len(), 4000);
    for writer in 0..4 {
        let prefix = format!("event=t writer={writer} ");
        let numbers: Vec<_> = all.iter().filter_map(|(_, line)| line.strip_prefix(&prefix)).collect();
        let expected: Vec<_> = (0..1000).map(|number| format!("n={number}")).collect();
        assert_eq!(numbers, expected);
    }
}

#[test]
fn only_enabled_levels_are_written_and_that_can_change() {
    let (sink, written) = Memory::new();
    let logger = Logger::start(Level::Warn, Box::new(sink)).unwrap();
    logger.error("e1");
    logger.info("i1");
    assert!(!logger.enabled(Level::Info));
    logger.set_level(Level::Debug);
    logger.debug("d2");
    assert!(logger.flush(PATIENCE));
    assert_eq!(written.all(), [(Level::Error, "e1".to_owned()), (Level::Debug, "d2".to_owned())]);
}

#[test]
fn a_silent_logger_stays_silent() {
    let logger = Logger::silent();
    logger.set_level(Level::Debug);
    assert!(!logger.enabled(Level::Error));
    logger.error("nobody hears this");
    assert!(logger.flush(Duration::ZERO));
}

#[test]
fn a_line_is_written_without_being_asked_for() {
    let (sink, written) = Memory::new();
    let logger = Logger::start(Level::Info, Box::new(sink)).unwrap();
    for round in 0..3 {
        logger.info(format_args!("line {round}"));
        assert!(written.wait_for(&format!("line {round}"), PATIENCE).is_some());
    }
}

#[test]
fn a_stuck_sink_costs_lines_and_never_holds_up_the_caller() {
    let (sink, written) = Memory::new();
    let (entered, was_entered) = mpsc::channel();
    let (open, opened) = mpsc::channel();
    let logger = Logger::start(Level::Info, Box::new(Stuck { entered, open: opened, then: sink })).unwrap();
    logger.info("first");
    was_entered.recv_timeout(PATIENCE).unwrap();

    let long = "x".repeat(1000);
    let handed_over = 2 * QUEUE_BYTES / long.len();
    for _ in 0..handed_over {
        logger.info(&long);
    }
    logger.error("there is room for errors");
    drop(open);
    assert!(logger.flush(PATIENCE));

    let all = written.all();
    let kept = all.iter().filter(|(_, line)| *line == long).count();
    assert!(kept > handed_over / 4 && kept < handed_over, "{kept}");
    let last_two: Vec<&str> = all[all.len() - 2..].iter().map(|(_, line)| line.as_str()).collect();
    let dropped = format!("event=log-lines-dropped lines={}", handed_over - kept);
    assert_eq!(last_two, ["there is room for errors", &dropped]);
}

#[test]
fn flush_gives_up_on_a_stuck_sink() {
    let (sink, _written) = Memory::new();
    let (entered, was_entered) = mpsc::channel();
    let (_open, opened) = mpsc::channel();
    let logger = Logger::start(Level::Info, Box::new(Stuck { entered, open: opened, then: sink })).unwrap();
    logger.info("first");
    was_entered.recv_timeout(PATIENCE).unwrap();
    assert!(!logger.flush(Duration::from_millis(1)));
}

#[test]
fn lines_can_go_elsewhere_from_now_on() {
    let (old, in_old) = Memory::new();
    let (new, in_new) = Memory::new();
    let logger = Logger::start(Level::Info, Box::new(old)).unwrap();
    logger.info("line 1");
    assert!(logger.flush(PATIENCE));
    logger.set_sink(Box::new(new));
    logger.info("line 2");
    assert!(logger.flush(PATIENCE));
    let texts = |all: Vec<(Level, String)>| all.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    assert_eq!(texts(in_old.all()), lines([1]));
    assert_eq!(texts(in_new.all()), lines([2]));
}

#[test]
fn the_last_logger_takes_its_lines_along() {
    let (sink, written) = Memory::new();
    let logger = Logger::start(Level::Info, Box::new(sink)).unwrap();
    for number in 0..100 {
        logger.clone().info(format_args!("line {number}"));
    }
    drop(logger);
    assert!(written.wait_for("line 99", PATIENCE).is_some());
}
