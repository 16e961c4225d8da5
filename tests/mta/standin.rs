//! Stand-ins: a milter that accepts everything or refuses at the end of each message, and a policy server
//! that permits everything. They prove the bed without relaykeeper, and play the other milter beside it.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A milter on a unix socket, as long as the test process lives.
pub struct Milter {
    pub path: PathBuf,
    refuses: Arc<AtomicBool>,
    messages: Arc<AtomicUsize>,
    adds: Arc<Mutex<Option<String>>>,
}

impl Milter {
    pub fn start(path: PathBuf) -> Self {
        let (refuses, messages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let adds = Arc::new(Mutex::new(None));
        let shared = (refuses.clone(), messages.clone(), adds.clone());
        serve(&path, move |stream| drop(milter_session(stream, &shared.0, &shared.1, &shared.2)));
        Milter { path, refuses, messages, adds }
    }

    /// The header that each message gets at its end from now on, if any: `NAME: VALUE`.
    pub fn add_header(&self, header: Option<&str>) {
        *self.adds.lock().unwrap() = header.map(str::to_owned);
    }

    /// Whether each message is refused at its end from now on: `554 5.7.1 refused at the end`.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Messages seen to their end.
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::SeqCst)
    }
}

/// A policy server on a unix socket: OK where permission to relay is asked for, DUNNO elsewhere.
pub fn policy_server(path: &Path) {
    serve(path, |stream| drop(policy_session(stream)));
}

fn serve(path: &Path, session: impl Fn(UnixStream) + Clone + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = session.clone();
            std::thread::spawn(move || session(stream));
        }
    });
}

fn milter_session(
    mut stream: UnixStream,
    refuses: &AtomicBool,
    messages: &AtomicUsize,
    adds: &Mutex<Option<String>>,
) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut packet)?;
        match packet[0] {
            b'O' => answer(&mut stream, b"O\0\0\0\x06\0\0\0\x01\0\0\0\0")?, // version 6, adds headers, every step
            b'E' => {
                messages.fetch_add(1, Ordering::SeqCst);
                let header = adds.lock().unwrap().clone();
                if let Some((name, value)) = header.as_deref().and_then(|header| header.split_once(": ")) {
                    answer(&mut stream, format!("h{name}\0{value}\0").as_bytes())?;
                }
                let refused = refuses.load(Ordering::SeqCst);
                answer(&mut stream, if refused { b"y554 5.7.1 refused at the end\0" } else { b"c" })?;
            }
            b'D' | b'A' | b'K' => {} // macros, ABORT, QUIT_NC: no answer
            b'Q' => return Ok(()),
            _ => answer(&mut stream, b"c")?,
        }
    }
}

fn answer(stream: &mut UnixStream, packet: &[u8]) -> io::Result<()> {
    let mut frame = (packet.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(packet);
    stream.write_all(&frame)
}

fn policy_session(mut stream: UnixStream) -> io::Result<()> {
    let mut permission = false;
    for line in BufReader::new(stream.try_clone()?).lines() {
        match line?.as_str() {
            "policy_context=relay" => permission = true,
            "" => {
                stream.write_all(if permission { b"action=OK\n\n" } else { b"action=DUNNO\n\n" })?;
                permission = false;
            }
            _ => {}
        }
    }
    Ok(())
}
