use super::*;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread;

const PATIENCE: Duration = Duration::from_secs(20);

fn batch(lines: &[&str]) -> Batch {
    let mut batch = Batch::default();
    for line in lines {
        batch.push(Level::Info, line);
    }
    batch
}

fn fake_daemon(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The words of the next message, without its header.
fn next_words(daemon: &UnixDatagram) -> String {
    let mut buffer = [0; 10_000];
    let length = daemon.recv(&mut buffer).expect("a message in time");
    words(&buffer[..length])
}

fn words(message: &[u8]) -> String {
    let text = String::from_utf8(message.to_vec()).unwrap();
    text.split_once("]: ").expect("a header").1.to_owned()
}

/// As the logger's thread does: waits for the time the sink asks for, and lets it try again.
fn retry_until_sent(sink: &mut Syslog) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(pause) = sink.retry_in() {
        assert!(Instant::now() < deadline, "nothing was taken in time");
        thread::sleep(pause);
        sink.retry();
    }
}

#[test]
fn the_header_is_that_of_rfc_3164() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = fake_daemon(&folder.path().join("log"));
    let mut sink = Syslog::new(folder.path().join("log"));
    let mut batch = Batch::default();
    batch.push(Level::Warn, "3F2A1C0: verdict=defer");
    let before = Timestamp::now();
    sink.write(&batch);
    let after = Timestamp::now();

    let mut buffer = [0; 1000];
    let length = daemon.recv(&mut buffer).unwrap();
    let message = str::from_utf8(&buffer[..length]).unwrap();
    let possible = [before, after].map(|time| {
        let stamp = stamp(&time.to_zoned(TimeZone::system()));
        format!("<20>{stamp} relaykeeper[{}]: 3F2A1C0: verdict=defer", process::id())
    });
    assert!(possible.iter().any(|expected| expected == message), "{message}");
}

#[test]
fn the_stamp_is_local_and_padded_with_a_blank() {
    let time: Zoned = "2026-07-04T09:05:01+02:00[Europe/Berlin]".parse().unwrap();
    assert_eq!(stamp(&time), "Jul  4 09:05:01");
}

#[test]
fn lines_wait_while_the_daemon_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sink = Syslog::new(&path);

    sink.write(&batch(&["before the daemon started"]));
    assert!(sink.retry_in().is_some());
    let daemon = fake_daemon(&path);
    retry_until_sent(&mut sink);
    assert_eq!(next_words(&daemon), "before the daemon started");

    drop(daemon);
    sink.write(&batch(&["closed, but the file is there"]));
    std::fs::remove_file(&path).unwrap();
    sink.write(&batch(&["the file is gone", "still gone"]));
    assert!(sink.retry_in().is_some());
    assert!(!sink.flush());

    let daemon = fake_daemon(&path);
    retry_until_sent(&mut sink);
    for expected in ["closed, but the file is there", "the file is gone", "still gone"] {
        assert_eq!(next_words(&daemon), expected);
    }
    assert_eq!(sink.backlog_bytes, 0);
}

#[test]
fn a_restart_between_two_lines_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let first = fake_daemon(&path);
    let mut sink = Syslog::new(&path);
    sink.write(&batch(&["one"]));
    assert_eq!(next_words(&first), "one");

    drop(first);
    std::fs::remove_file(&path).unwrap();
    let second = fake_daemon(&path);
    sink.write(&batch(&["two"]));
    assert_eq!(sink.retry_in(), None);
    assert_eq!(next_words(&second), "two");
}

#[test]
fn lines_that_do_not_fit_are_counted_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sink = Syslog::new(&path);
    sink.backlog_limit = 200;
    sink.write(&batch(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]));
    let kept = sink.backlog.len();
    assert!((1..9).contains(&kept), "{kept}");

    let daemon = fake_daemon(&path);
    retry_until_sent(&mut sink);
    for expected in 1..=kept {
        assert_eq!(next_words(&daemon), expected.to_string());
    }
    assert_eq!(next_words(&daemon), format!("event=syslog-lines-lost lines={}", 9 - kept));
    assert_eq!(sink.lost, 0);
}

#[test]
fn a_slow_daemon_gets_everything_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let daemon = fake_daemon(&path);
    let mut sink = Syslog::new(&path);
    // More than the kernel queues for a daemon that does not read, whatever its settings.
    let lines: Vec<String> = (0..20_000).map(|number| format!("{number} {}", "x".repeat(100))).collect();
    sink.write(&batch(&lines.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(sink.retry_in().is_some(), "the kernel took all of it");

    thread::scope(|scope| {
        scope.spawn(|| retry_until_sent(&mut sink));
        for expected in &lines {
            assert_eq!(&next_words(&daemon), expected);
        }
    });
}

#[test]
fn a_stream_gets_records_that_end_with_nul() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sink = Syslog::new(&path);

    let listener = UnixListener::bind(&path).unwrap();
    sink.write(&batch(&["one", "two"]));
    let stream = accept(&listener);
    assert_eq!(next_records(stream, 2), ["one", "two"]);

    // That connection is closed now: the next line needs a new one.
    sink.write(&batch(&["three"]));
    let stream = accept(&listener);
    assert_eq!(next_records(stream, 1), ["three"]);
}

fn accept(listener: &UnixListener) -> UnixStream {
    // The time limit for receiving is one for accepting, too: socket(7).
    setsockopt(listener, ReceiveTimeout, &TimeVal::seconds(PATIENCE.as_secs() as i64)).unwrap();
    listener.accept().expect("a connection in time").0
}

fn next_records(mut stream: UnixStream, count: usize) -> Vec<String> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    let mut ends = 0;
    while ends < count {
        let mut buffer = [0; 10_000];
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "closed too early");
        ends += buffer[..length].iter().filter(|byte| **byte == 0).count();
        received.extend_from_slice(&buffer[..length]);
    }
    received.split(|byte| *byte == 0).filter(|record| !record.is_empty()).map(words).collect()
}

#[test]
fn a_stream_that_nobody_reads_does_not_hold_up_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sink = Syslog::new(&path);
    let lines: Vec<String> = (0..2000).map(|number| format!("{number} {}", "x".repeat(1000))).collect();
    sink.write(&batch(&lines.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(sink.retry_in().is_some(), "the kernel took all of it");

    let stream = accept(&listener);
    thread::scope(|scope| {
        scope.spawn(|| retry_until_sent(&mut sink));
        assert_eq!(next_records(stream, lines.len()), lines);
    });
}
