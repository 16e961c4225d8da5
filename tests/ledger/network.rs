//! Networks that can be cut: namespaces with one hub between them, which silently drops packets on demand. That needs root; for
//! others these tests say that they did nothing.

use crate::redis::Place;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

/// Members are numbered from 0. What is left of it goes when the test ends, however it ends.
pub struct Network {
    hub: File,
    members: Vec<File>,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    All,
    /// Only those to the member: what it sends arrives.
    ToIt,
}

impl Network {
    /// None, and a word about it, without root. The calling thread is a member of none yet.
    pub fn new(members: usize) -> Option<Network> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not tested: needs root, for networks of its own");
            return None;
        }
        let hub = match own() {
            Ok(hub) => hub,
            Err(error) => {
                eprintln!("not tested: this machine allows no network namespaces: {error}");
                return None;
            }
        };
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("it passes packets on");
        let mut network = Network { hub, members: Vec::new() };
        for number in 0..members {
            network.add(number);
        }
        Some(network)
    }

    fn add(&mut self, number: usize) {
        let member = own().expect("another namespace");
        let (port, hub) = (format!("m{number}"), path(&self.hub));
        ip(&["link", "set", "lo", "up"]);
        ip(&["link", "add", "uplink", "type", "veth", "peer", "name", &port, "netns", &hub]);
        ip(&["addr", "add", &format!("{}/30", address(number)), "dev", "uplink"]);
        ip(&["link", "set", "uplink", "up"]);
        let gateway = format!("10.77.{number}.1");
        setns(&self.hub, CloneFlags::CLONE_NEWNET).expect("the hub");
        ip(&["addr", "add", &format!("{gateway}/30"), "dev", &port]);
        ip(&["link", "set", &port, "up"]);
        setns(&member, CloneFlags::CLONE_NEWNET).expect("the member");
        ip(&["route", "add", "default", "via", &gateway]);
        self.members.push(member);
    }

    /// Where a server is to be started.
    pub fn place(&self, member: usize) -> Place {
        Place { namespace: path(&self.members[member]), address: address(member) }
    }

    /// From now on the calling thread connects from there.
    pub fn enter(&self, member: usize) {
        setns(&self.members[member], CloneFlags::CLONE_NEWNET).expect("the member");
    }

    pub fn cut(&self, member: usize, lost: Lost) {
        self.rules("add", member, lost);
    }

    pub fn heal(&self, member: usize, lost: Lost) {
        self.rules("del", member, lost);
    }

    fn rules(&self, what: &str, member: usize, lost: Lost) {
        let (hub, net) = (format!("--net={}", path(&self.hub)), format!("10.77.{member}.0/30"));
        let mut directions = vec!["to"];
        if lost == Lost::All {
            directions.push("from");
        }
        for direction in directions {
            run("nsenter", &[&hub, "ip", "rule", what, direction, &net, "blackhole"]);
        }
    }

    /// Whether connections of the calling thread's member still have something to send, also those that nobody has open any
    /// more (proc_pid_net(5): tx_queue).
    pub fn has_unsent() -> bool {
        let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("connections");
        let queues = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4)?.split(':').next());
        queues.into_iter().any(|queue| queue != "00000000")
    }
}

/// Makes a namespace, which the calling thread is in then.
fn own() -> nix::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(File::open("/proc/thread-self/ns/net").expect("it has a name"))
}

fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn address(member: usize) -> String {
    format!("10.77.{member}.2")
}

fn ip(words: &[&str]) {
    run("ip", words);
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
