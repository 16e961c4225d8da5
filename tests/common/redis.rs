//! Private Redis and Valkey servers, by `tests/bed/redis.sh`. They end with their value, and also when the test process
//! dies in any other way: the script reads a pipe whose other end is ours.

use parking_lot::Mutex;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Redis,
    Valkey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Node 0.
    Single,
    /// Masters 0 to 2, and a replica of each: 3 to 5.
    Cluster,
    /// The master 0, its replica 1, and the sentinels 2 to 4.
    Sentinel,
}

/// Some servers that belong together.
pub struct Servers {
    kind: Kind,
    folder: PathBuf,
    script: Mutex<Script>,
    nodes: Mutex<Vec<Node>>,
    /// Of each node; none if they are all here.
    places: Vec<Place>,
}

struct Script {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    port: u16,
    pid: i32,
    /// 0: none.
    tls_port: u16,
}

/// The network namespace that a node is started in.
#[derive(Clone, Debug)]
pub struct Place {
    /// For nsenter(1).
    pub namespace: String,
    pub address: String,
}

impl Servers {
    /// Starts servers with further options, such as `--maxmemory 10mb`.
    ///
    /// # Panics
    /// If they do not start.
    pub fn start(flavour: Flavour, kind: Kind, options: &[&str]) -> Servers {
        Servers::start_in(Vec::new(), flavour, kind, options)
    }

    /// Starts servers whose clocks can be set.
    ///
    /// # Panics
    /// If they do not start.
    pub fn start_with_clocks(flavour: Flavour, kind: Kind) -> Servers {
        Servers::start_as(Vec::new(), true, flavour, kind, &[])
    }

    /// From now on a node's wall clock is off by so many seconds. Valkey looks at it only now and then.
    ///
    /// # Panics
    /// If the node was not started with such a clock.
    pub fn set_clock(&self, node: usize, seconds: i64) {
        let path = self.folder.join(node.to_string()).join("clock");
        // In place: the server has mapped it.
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("it was started with a clock");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("the clock is set");
        let is_set = || {
            let right = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64) + seconds;
            let shown = self.cli(node, &["time"]);
            let shown: i64 = shown.lines().next().and_then(|line| line.parse().ok()).expect("a server tells the time");
            (shown - right).abs() < 10
        };
        while !is_set() {
            std::thread::yield_now();
        }
    }

    /// Starts each server in a network of its own.
    ///
    /// # Panics
    /// If they do not start.
    pub fn start_in(places: Vec<Place>, flavour: Flavour, kind: Kind, options: &[&str]) -> Servers {
        Servers::start_as(places, false, flavour, kind, options)
    }

    fn start_as(places: Vec<Place>, fake_clock: bool, flavour: Flavour, kind: Kind, options: &[&str]) -> Servers {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let bed =
            std::env::var_os("RELAYKEEPER_TESTS").map_or_else(|| "/var/cache/relaykeeper-tests".into(), PathBuf::from);
        let name = format!("redis-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = bed.join("run").join(name);
        let (flavour, word) = match (flavour, kind) {
            (Flavour::Redis, kind) => ("redis", kind),
            (Flavour::Valkey, kind) => ("valkey", kind),
        };
        let word = match word {
            Kind::Single => "single",
            Kind::Cluster => "cluster",
            Kind::Sentinel => "sentinel",
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/redis.sh");
        let mut command = Command::new(script);
        command.arg("run").arg(&folder).args([flavour, word]).args(options).env("RELAYKEEPER_TESTS", &bed);
        let networks: Vec<_> = places.iter().map(|place| format!("{}={}", place.namespace, place.address)).collect();
        command.env("NETWORKS", networks.join(" ")).env("FAKE_CLOCK", if fake_clock { "1" } else { "" });
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tests/bed/redis.sh starts");
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("it was asked for")));
        let mut script = Script { child, input, output };
        let mut nodes = Vec::new();
        loop {
            let line = script.line();
            if line == "ready" {
                break;
            }
            let (number, node) = read_node(&line).unwrap_or_else(|| {
                panic!("{flavour} {word} did not start (see above). Is it missing? Run tests/run.sh: {line}")
            });
            assert_eq!(number, nodes.len());
            nodes.push(node);
        }
        Servers { kind, folder, script: Mutex::new(script), nodes: Mutex::new(nodes), places }
    }

    /// Servers that several tests use at once, until the last of them has ended.
    pub fn shared(flavour: Flavour, kind: Kind) -> Arc<Servers> {
        type Known = Vec<(Flavour, Kind, Weak<Servers>)>;
        static SHARED: Mutex<Known> = Mutex::new(Vec::new());
        let mut known = SHARED.lock();
        known.retain(|(.., servers)| servers.strong_count() > 0);
        let found =
            known.iter().find(|(a, b, _)| (*a, *b) == (flavour, kind)).and_then(|(.., servers)| servers.upgrade());
        found.unwrap_or_else(|| {
            let servers = Arc::new(Servers::start(flavour, kind, &[]));
            known.push((flavour, kind, Arc::downgrade(&servers)));
            servers
        })
    }

    /// As in `store.urls`.
    pub fn urls(&self) -> Vec<String> {
        let nodes = self.nodes.lock();
        let seeds = match self.kind {
            Kind::Single => 0..1,
            Kind::Cluster => 0..3,
            Kind::Sentinel => 2..5,
        };
        seeds.map(|node| format!("redis://{}:{}", self.address(node), nodes[node].port)).collect()
    }

    /// As in `store.urls`, of a Cluster with `--tls-cluster yes`.
    pub fn tls_urls(&self) -> Vec<String> {
        let nodes = self.nodes.lock();
        nodes[..3].iter().map(|node| format!("rediss://127.0.0.1:{}", node.tls_port)).collect()
    }

    fn address(&self, node: usize) -> &str {
        self.places.get(node).map_or("127.0.0.1", |place| &place.address)
    }

    pub fn port(&self, node: usize) -> u16 {
        self.nodes.lock()[node].port
    }

    /// The unix socket of a single server.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("0/socket")
    }

    /// Runs a command on a node, as an administrator would with redis-cli(1).
    ///
    /// # Panics
    /// If it fails.
    pub fn cli(&self, node: usize, words: &[&str]) -> String {
        self.try_cli(node, words).unwrap_or_else(|trouble| panic!("redis-cli {words:?}: {trouble}"))
    }

    /// As [`Servers::cli`].
    ///
    /// # Errors
    /// What the server says.
    pub fn try_cli(&self, node: usize, words: &[&str]) -> Result<String, String> {
        let port = self.port(node).to_string();
        let mut command = match self.places.get(node) {
            Some(place) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", place.namespace)).arg("redis-cli");
                command
            }
            None => Command::new("redis-cli"),
        };
        command.args(["-e", "-h", self.address(node), "-p", &port]).args(words).stdin(Stdio::null());
        let output = command.output().expect("redis-cli runs");
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(format!("{text} {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// SIGSTOP: its connections stay open, and nothing is answered.
    pub fn pause(&self, node: usize) {
        self.signal(node, libc::SIGSTOP);
    }

    pub fn resume(&self, node: usize) {
        self.signal(node, libc::SIGCONT);
    }

    pub fn kill(&self, node: usize) {
        self.signal(node, libc::SIGKILL);
    }

    /// Starts a node again that was killed, with what it had on disk.
    pub fn start_again(&self, node: usize) {
        let mut script = self.script.lock();
        let input = script.input.as_mut().expect("open until it is dropped");
        writeln!(input, "start {node}").expect("tests/bed/redis.sh reads");
        let line = script.line();
        let (_, started) = read_node(&line).unwrap_or_else(|| panic!("node {node} did not start again: {line}"));
        self.nodes.lock()[node] = started;
    }

    fn signal(&self, node: usize, signal: i32) {
        // SAFETY: no memory is shared.
        let sent = unsafe { libc::kill(self.nodes.lock()[node].pid, signal) };
        assert_eq!(sent, 0, "node {node} is there");
    }
}

impl Script {
    /// What it says next; nothing when it has ended.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.output.read_line(&mut line);
        line.trim().to_owned()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn read_node(line: &str) -> Option<(usize, Node)> {
    let mut words = line.strip_prefix("node ")?.split(' ');
    let number = words.next()?.parse().ok()?;
    let [port, pid, tls_port] = [words.next()?, words.next()?, words.next()?];
    Some((number, Node { port: port.parse().ok()?, pid: pid.parse().ok()?, tls_port: tls_port.parse().ok()? }))
}
