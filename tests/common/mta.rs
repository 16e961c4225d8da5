//! An MTA as a milter sees it: Postfix 3.7 or Sendmail 8.17, with what tells the two apart.

use super::soon;
use std::io;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Which MTA it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postfix,
    Sendmail,
}

/// What the MTA offers at negotiation.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub version: u32,
    pub actions: u32,
    pub steps: u32,
}

pub const ADD_RECIPIENT: u32 = 0x4;
pub const CHANGE_SENDER: u32 = 0x40;
pub const ADD_RECIPIENT_WITH_ARGUMENTS: u32 = 0x80;
pub const REQUEST_MACROS: u32 = 0x100;
pub const NO_HELO: u32 = 0x2;
pub const NO_BODY: u32 = 0x10;
pub const NO_HEADER: u32 = 0x20;
pub const NO_EOH: u32 = 0x40;
pub const NOREPLY_HEADER: u32 = 0x80;
pub const NOREPLY_CONNECT: u32 = 0x1000;
pub const NOREPLY_HELO: u32 = 0x2000;
pub const NOREPLY_MAIL: u32 = 0x4000;
pub const NOREPLY_EOH: u32 = 0x4_0000;
pub const NOREPLY_BODY: u32 = 0x8_0000;

impl Offer {
    /// Postfix 3.7 and Sendmail 8.17.
    pub const V6: Offer = Offer { version: 6, actions: 0x1ff, steps: 0x1f_ffff };
    /// Sendmail before 8.14: no change of the sender.
    pub const V2: Offer = Offer { version: 2, actions: 0x3f, steps: 0x7f };
}

/// The other end of the SMTP session.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: String,
    pub port: u16,
    pub server: String,
    pub server_port: u16,
    pub helo: String,
    pub tls: String,
    pub login: String,
    /// `{auth_type}`, where there is a login.
    pub sasl_method: String,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            address: "192.0.2.7".into(),
            port: 4711,
            server: "198.51.100.25".into(),
            server_port: 25,
            helo: "mx.acme.example".into(),
            tls: String::new(),
            login: String::new(),
            sasl_method: "PLAIN".into(),
        }
    }
}

/// What the milter answers to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Continue,
    /// `y`: the reply as the client gets it, `%%` made one again.
    Reply(String),
    /// `t`: the MTA's own words, class 4.
    Tempfail,
    /// Anything else.
    Other(u8),
}

impl Answer {
    pub fn reply(&self) -> &str {
        match self {
            Answer::Reply(reply) => reply,
            other => panic!("no reply, but {other:?}"),
        }
    }
}

/// A milter session, which is an SMTP session.
pub struct Mta {
    stream: UnixStream,
    kind: Kind,
    client: Client,
    /// What was agreed upon.
    pub agreed: Offer,
    /// The macros that were asked for, as they came.
    pub macros_wanted: Vec<u8>,
    /// Recipients that were added to the last message, as they came.
    pub added: Vec<String>,
    /// Headers that were taken out of the last message: number and name.
    pub removed: Vec<(u32, String)>,
    /// What the MTA makes of the next sender (`{mail_addr}`) and recipient (`{rcpt_addr}`); empty is not sent.
    pub sender_reading: String,
    pub recipient_reading: String,
    queue_id: Option<String>,
    messages: u32,
}

impl Mta {
    pub async fn connect(path: &Path, kind: Kind) -> Mta {
        Mta::negotiate(path, kind, Offer::V6).await
    }

    pub async fn negotiate(path: &Path, kind: Kind, offer: Offer) -> Mta {
        let stream = UnixStream::connect(path).await.expect("the milter listens");
        let mut mta = Mta {
            stream,
            kind,
            client: Client::default(),
            agreed: offer,
            macros_wanted: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            sender_reading: String::new(),
            recipient_reading: String::new(),
            queue_id: None,
            messages: 0,
        };
        let numbers = [offer.version, offer.actions, offer.steps].map(u32::to_be_bytes).concat();
        mta.send(b'O', &numbers).await.unwrap();
        let (code, answer) = mta.receive().await.expect("negotiation");
        assert_eq!(code, b'O');
        let number = |at: usize| u32::from_be_bytes(answer[at..at + 4].try_into().unwrap());
        mta.agreed = Offer { version: number(0), actions: number(4), steps: number(8) };
        mta.macros_wanted = answer[12..].to_vec();
        assert_eq!(mta.agreed.actions & !offer.actions, 0, "asks for actions that were not offered");
        assert_eq!(mta.agreed.steps & !offer.steps, 0, "asks for steps that were not offered");
        assert!(mta.agreed.version <= offer.version);
        mta
    }

    /// CONNECT and HELO; with TLS another HELO after it.
    pub async fn open(path: &Path, kind: Kind, client: Client) -> Mta {
        let mut mta = Mta::connect(path, kind).await;
        mta.begin(client).await;
        mta
    }

    pub async fn begin(&mut self, client: Client) {
        assert_eq!(self.greet(client).await, Answer::Continue);
    }

    /// CONNECT and HELO, and what is said to the HELO.
    pub async fn greet(&mut self, client: Client) -> Answer {
        assert_eq!(self.connection(&client).await, Answer::Continue);
        let tls = client.tls.clone();
        self.client = client;
        let answer = self.helo("").await;
        if tls.is_empty() || answer != Answer::Continue { answer } else { self.helo(&tls).await }
    }

    /// CONNECT, in the MTA's spelling.
    pub async fn connection(&mut self, client: &Client) -> Answer {
        let Client { address, port, server, server_port, .. } = client;
        let version = if self.kind == Kind::Sendmail { "8.17.1.9" } else { "Postfix 3.7.11" };
        let server_port = server_port.to_string();
        let macros =
            [("v", version), ("{daemon_addr}", server), ("{daemon_port}", &server_port), ("j", "relay.example.net")];
        self.macros(b'C', &macros).await;
        let mut data = b"mx.client.example\0".to_vec();
        match address.as_str() {
            "unknown" => data.push(b'U'),
            "local" => data.extend_from_slice(b"L\0\0/var/run/some.sock\0"),
            _ => {
                data.push(if address.contains(':') { b'6' } else { b'4' });
                data.extend_from_slice(&port.to_be_bytes());
                if address.contains(':') && self.kind == Kind::Sendmail {
                    data.extend_from_slice(b"IPv6:");
                    let address: std::net::Ipv6Addr = address.parse().unwrap();
                    let parts = address.segments().map(|part| format!("{part:x}"));
                    data.extend_from_slice(parts.join(":").as_bytes());
                } else {
                    data.extend_from_slice(address.as_bytes());
                }
                data.push(0);
            }
        }
        self.step(b'C', &data, NOREPLY_CONNECT).await
    }

    pub async fn helo(&mut self, tls: &str) -> Answer {
        let name = self.client.helo.clone();
        self.helo_as(&name, tls).await
    }

    pub async fn helo_as(&mut self, name: &str, tls: &str) -> Answer {
        if tls.is_empty() {
            self.macros(b'H', &[]).await;
        } else {
            self.macros(b'H', &[("{tls_version}", tls), ("{cipher}", "TLS_AES_256_GCM_SHA384")]).await;
        }
        self.step(b'H', &nul_terminated(name), NOREPLY_HELO).await
    }

    /// MAIL, with the address in brackets.
    pub async fn mail(&mut self, sender: &str) -> Answer {
        self.mail_as(format!("<{sender}>").as_bytes()).await
    }

    pub async fn mail_as(&mut self, sender: &[u8]) -> Answer {
        self.mail_declaring(sender, 1000).await
    }

    /// MAIL with `SIZE=`.
    pub async fn mail_declaring(&mut self, sender: &[u8], size: u64) -> Answer {
        self.messages += 1;
        let queue_id = format!("{:06X}{}", self.messages, self.client.port);
        let login = match self.kind {
            Kind::Postfix => self.client.login.clone(),
            Kind::Sendmail => xtext(&self.client.login),
        };
        let reading = std::mem::take(&mut self.sender_reading);
        let method = self.client.sasl_method.clone();
        let mut macros = Vec::new();
        if self.kind == Kind::Sendmail {
            macros.push(("i", queue_id.as_str()));
        }
        if !login.is_empty() {
            macros.extend([("{auth_authen}", login.as_str()), ("{auth_type}", method.as_str())]);
        }
        if !reading.is_empty() {
            macros.push(("{mail_addr}", reading.as_str()));
        }
        self.macros(b'M', &macros).await;
        self.queue_id = None;
        let mut data = sender.to_vec();
        data.extend_from_slice(format!("\0BODY=8BITMIME\0SIZE={size}\0").as_bytes());
        self.step(b'M', &data, NOREPLY_MAIL).await
    }

    pub async fn recipient(&mut self, recipient: &str) -> Answer {
        self.recipient_as(format!("<{recipient}>").as_bytes()).await
    }

    pub async fn recipient_as(&mut self, recipient: &[u8]) -> Answer {
        let queue_id = self.queue_id.clone();
        let reading = std::mem::take(&mut self.recipient_reading);
        let mut macros = vec![("{rcpt_mailer}", "smtp")];
        if let Some(id) = queue_id.as_deref().filter(|_| self.kind == Kind::Postfix) {
            macros.push(("i", id));
        }
        if !reading.is_empty() {
            macros.push(("{rcpt_addr}", reading.as_str()));
        }
        self.macros(b'R', &macros).await;
        let mut data = recipient.to_vec();
        data.push(0);
        let answer = self.step(b'R', &data, 0).await;
        if answer == Answer::Continue {
            self.queue_id = Some(self.queue_id_of_message());
        }
        answer
    }

    /// The content of a message, in chunks as MTAs make them, as far as it was asked for.
    pub async fn content(&mut self, message: &str) {
        let (header, body) = message.split_once("\r\n\r\n").expect("a header and a body");
        for line in header.replace("\r\n\t", "\n\t").split("\r\n") {
            let (name, value) = line.split_once(": ").expect("a header field");
            assert_eq!(self.header(name, value).await, Answer::Continue);
        }
        assert_eq!(self.end_of_headers().await, Answer::Continue);
        for chunk in body.as_bytes().chunks(65_535) {
            if self.agreed.steps & NO_BODY == 0 {
                assert_eq!(self.step(b'B', chunk, NOREPLY_BODY).await, Answer::Continue);
            }
        }
    }

    pub fn queue_id_of_message(&self) -> String {
        format!("{:06X}{}", self.messages, self.client.port)
    }

    /// A header, as far as headers are asked for. Postfix leaves the blank before the value out.
    pub async fn header(&mut self, name: &str, value: &str) -> Answer {
        if self.agreed.steps & NO_HEADER != 0 {
            return Answer::Continue;
        }
        let blank = if self.kind == Kind::Sendmail { " " } else { "" };
        let data = [nul_terminated(name), nul_terminated(&format!("{blank}{value}"))].concat();
        self.step(b'L', &data, NOREPLY_HEADER).await
    }

    pub async fn end_of_headers(&mut self) -> Answer {
        if self.agreed.steps & NO_EOH != 0 {
            return Answer::Continue;
        }
        self.step(b'N', b"", NOREPLY_EOH).await
    }

    /// The end of the message: the new senders, and the answer.
    pub async fn end(&mut self) -> (Vec<String>, Answer) {
        let end = self.try_end().await.expect("an answer at the end of the message");
        if self.kind == Kind::Postfix {
            self.abort().await;
        }
        end
    }

    pub async fn try_end(&mut self) -> io::Result<(Vec<String>, Answer)> {
        match self.kind {
            Kind::Postfix => {
                let queue_id = self.queue_id_of_message();
                self.macros(b'E', &[("i", &queue_id)]).await;
            }
            Kind::Sendmail => self.macros(b'E', &[]).await,
        }
        self.send(b'E', b"").await?;
        let mut senders = Vec::new();
        self.added.clear();
        self.removed.clear();
        loop {
            match self.receive().await? {
                (b'+' | b'2', data) => {
                    let data = String::from_utf8(data).expect("an address");
                    self.added.push(data.trim_end_matches('\0').replace('\0', " "));
                }
                (b'm', data) => {
                    let (nth, header) = data.split_first_chunk().expect("a header's number");
                    let header = String::from_utf8_lossy(header).trim_end_matches('\0').to_owned();
                    self.removed.push((u32::from_be_bytes(*nth), header));
                }
                (b'e', data) => {
                    let data = String::from_utf8(data).expect("an address");
                    let sender = data.strip_suffix('\0').expect("no ESMTP arguments");
                    assert!(!sender.contains('\0'), "no ESMTP arguments: {sender:?}");
                    senders.push(sender.to_owned());
                }
                (code, data) => return Ok((senders, answer(code, data))),
            }
        }
    }

    pub async fn abort(&mut self) {
        self.send(b'A', b"").await.expect("ABORT is taken");
    }

    pub async fn quit(mut self) {
        if self.kind == Kind::Postfix {
            self.abort().await;
        }
        self.send(b'Q', b"").await.expect("QUIT is taken");
        let closed = self.receive().await.expect_err("QUIT is not answered");
        assert_eq!(closed.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Macros for the step that follows.
    pub async fn macros(&mut self, step: u8, macros: &[(&str, &str)]) {
        let mut data = vec![step];
        for (name, value) in macros {
            data.extend_from_slice(&nul_terminated(name));
            data.extend_from_slice(&nul_terminated(value));
        }
        self.send(b'D', &data).await.expect("macros are taken");
    }

    /// A step and its answer; where none was agreed upon, none is awaited.
    pub async fn step(&mut self, command: u8, data: &[u8], noreply: u32) -> Answer {
        self.send(command, data).await.expect("a step is taken");
        if self.agreed.steps & noreply != 0 {
            return Answer::Continue;
        }
        let (code, data) = self.receive().await.expect("an answer");
        answer(code, data)
    }

    pub async fn send(&mut self, command: u8, data: &[u8]) -> io::Result<()> {
        let mut frame = (data.len() as u32 + 1).to_be_bytes().to_vec();
        frame.push(command);
        frame.extend_from_slice(data);
        self.send_raw(&frame).await
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        soon("bytes are taken", self.stream.write_all(bytes)).await
    }

    pub async fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        soon("an answer", async {
            let length = self.stream.read_u32().await?;
            let code = self.stream.read_u8().await?;
            let mut data = vec![0; length as usize - 1];
            self.stream.read_exact(&mut data).await?;
            Ok((code, data))
        })
        .await
    }

    /// What comes until the connection is closed from the other side.
    pub async fn read_until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = soon("the connection is closed", self.stream.read_to_end(&mut rest)).await;
        rest
    }
}

fn answer(code: u8, data: Vec<u8>) -> Answer {
    match code {
        b'c' => Answer::Continue,
        b't' => Answer::Tempfail,
        b'y' => {
            let text = String::from_utf8(data).expect("a reply is text");
            let text = text.strip_suffix('\0').expect("a reply ends");
            let doubled = text.replace("%%", "");
            assert!(!doubled.contains('%'), "a single % breaks the reply: {text}");
            Answer::Reply(text.replace("%%", "%"))
        }
        other => Answer::Other(other),
    }
}

/// As Sendmail's `xtextify` has it.
fn xtext(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"+\\(<>\")=".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("+{byte:02X}") })
        .collect()
}

fn nul_terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
