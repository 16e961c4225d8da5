//! The next hop: `smtp-sink` keeps each envelope that leaves the MTA.

use crate::bed::{Folder, Port, Process, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// One message as it left the MTA.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Without angle brackets; empty for `<>`.
    pub sender: String,
    /// Without angle brackets, sorted (Sendmail delivers in an order of its own).
    pub recipients: Vec<String>,
    /// Header and body.
    pub content: String,
}

pub struct Sink {
    pub port: u16,
    folder: PathBuf,
    _process: Process,
    _port: Port,
}

impl Sink {
    pub fn start(folder: &Folder) -> Self {
        let port = Port::take();
        let path = folder.path().join("sink");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = Command::new("/usr/sbin/smtp-sink");
        command
            .args(["-u", "postfix", "-d", "m.", "-R"])
            .arg(&path)
            .arg(format!("127.0.0.1:{}", port.number))
            .arg("100");
        let process = Process::guarded(&command, &folder.path().join("sink.log"));
        eventually("smtp-sink listens (is it missing? run tests/run.sh, which installs it)", || {
            std::net::TcpStream::connect(("127.0.0.1", port.number)).ok()
        });
        Sink { port: port.number, folder: path, _process: process, _port: port }
    }

    /// Awaits the message that `Client::send` gave this id.
    pub fn await_mail(&self, id: &str) -> Envelope {
        eventually(&format!("message {id} leaves the MTA"), || self.with_id(id).into_iter().next())
    }

    /// The envelopes with this id that have arrived completely.
    pub fn with_id(&self, id: &str) -> Vec<Envelope> {
        let mark = format!("X-Test-Id: {id}\n");
        self.all().into_iter().filter(|envelope| envelope.content.contains(&mark)).collect()
    }

    pub fn all(&self) -> Vec<Envelope> {
        let files = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter_map(|path| fs::read(path).ok())
            .filter_map(|text| envelope(&String::from_utf8_lossy(&text)))
            .collect()
    }
}

impl Sink {
    /// Mail that relaykeeper wrote itself, once there is so much of it.
    pub fn await_letters(&self, number: usize) -> Vec<Envelope> {
        let mut letters = Vec::new();
        let reached = crate::bed::within(crate::bed::DEADLINE, || {
            letters = self.letters();
            (letters.len() >= number).then_some(())
        });
        assert!(reached.is_some() && letters.len() == number, "{} letters, not {number}: {letters:#?}", letters.len());
        letters
    }

    fn letters(&self) -> Vec<Envelope> {
        let files = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let texts = files.filter_map(|path| fs::read_to_string(path).ok());
        // The last sentence says how often people are told.
        let is_whole = |text: &String| {
            text.contains("\nX-Relaykeeper-Notice: ")
                && ["hour.", "hours.", "minutes."].iter().any(|end| text.trim_end().ends_with(end))
        };
        texts.filter(is_whole).filter_map(|text| parsed(&text)).collect()
    }
}

impl Envelope {
    /// A header's value, unfolded; not decoded.
    pub fn header(&self, name: &str) -> String {
        let content = self.content.replace("\n ", " ").replace("\n\t", " ");
        let value = content.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        value.unwrap_or_else(|| panic!("no {name} in\n{}", self.content))
    }
}

/// The last line of each message that the tests send: `smtp-sink` writes a file bit by bit.
pub const LAST_LINE: &str = "-- end of test message --";

fn envelope(file: &str) -> Option<Envelope> {
    if !file.trim_end().ends_with(LAST_LINE) {
        return None;
    }
    parsed(file)
}

fn parsed(file: &str) -> Option<Envelope> {
    let values = |key: &str| -> Vec<String> {
        file.lines()
            .take_while(|line| line.starts_with("X-"))
            .filter_map(|line| line.strip_prefix(key))
            .map(address)
            .collect()
    };
    let mut recipients = values("X-Rcpt-Args: ");
    recipients.sort();
    Some(Envelope { sender: values("X-Mail-Args: ").pop()?, recipients, content: file.replace("\r\n", "\n") })
}

/// `<address> PARAMETER…` → address
fn address(arguments: &str) -> String {
    let inner = arguments.trim().strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(address, _)| address);
    inner.unwrap_or(arguments).to_owned()
}
