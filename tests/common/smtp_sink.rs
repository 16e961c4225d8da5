//! An SMTP server that takes every message, for relaykeeper's own mail.

use super::until;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A message as it was sent.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    /// The arguments of MAIL and RCPT, as typed.
    pub sender: String,
    pub recipients: Vec<String>,
    pub text: String,
}

impl Mail {
    /// A header's value, unfolded; not decoded.
    pub fn header(&self, name: &str) -> String {
        let headers = self.text.split("\n\n").next().unwrap_or_default().replace("\n ", " ");
        let value = headers.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        value.unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }
}

pub struct SmtpSink {
    pub address: SocketAddr,
    taken: Arc<Mutex<Vec<Mail>>>,
}

impl SmtpSink {
    pub async fn start() -> SmtpSink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, taken) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let mails = taken.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mails = mails.clone();
                tokio::spawn(async move { take(stream, &mails).await });
            }
        });
        SmtpSink { address, taken }
    }

    pub fn all(&self) -> Vec<Mail> {
        self.taken.lock().clone()
    }

    /// All mail, once there are so many.
    pub async fn await_mails(&self, number: usize) -> Vec<Mail> {
        until(&format!("{number} mails"), async || self.taken.lock().len() >= number).await;
        let all = self.all();
        assert_eq!(all.len(), number, "{all:#?}");
        all
    }
}

async fn take(stream: TcpStream, mails: &Mutex<Vec<Mail>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sink\r\n").await.ok()?;
    let mut mail = Mail::default();
    loop {
        let line = read_line(&mut stream).await?;
        let reply = match line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "MAIL" => {
                mail = Mail { sender: line["MAIL FROM:".len()..].to_owned(), ..Mail::default() };
                "250 ok"
            }
            "RCPT" => {
                mail.recipients.push(line["RCPT TO:".len()..].to_owned());
                "250 ok"
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.ok()?;
                loop {
                    let line = read_line(&mut stream).await?;
                    if line == "." {
                        break;
                    }
                    mail.text.push_str(line.strip_prefix('.').unwrap_or(&line));
                    mail.text.push('\n');
                }
                mails.lock().push(std::mem::take(&mut mail));
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "250 sink",
        };
        stream.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}
