//! A scripted SMTP client that returns every reply.

use crate::bed::DEADLINE;
use crate::sink::LAST_LINE;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One reply, of one or several lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub code: u16,
    /// What follows the code, a line each.
    pub lines: Vec<String>,
}

impl Reply {
    pub fn accepted(&self) -> bool {
        self.code < 400
    }

    /// All lines as one text; an enhanced status code that is repeated in each stands once.
    pub fn text(&self) -> String {
        let mut text = self.lines[0].clone();
        let status = self.lines[0].split(' ').next().filter(|word| word.split('.').count() == 3).unwrap_or("\n");
        for line in &self.lines[1..] {
            text.push(' ');
            text.push_str(line.strip_prefix(status).unwrap_or(line).trim_start());
        }
        text
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text())
    }
}

/// What came of one transaction.
#[derive(Debug)]
pub struct Sent {
    /// Marks the message at the sink (`X-Test-Id`).
    pub id: String,
    pub mail: Reply,
    pub recipients: Vec<Reply>,
    pub data: Option<Reply>,
    pub end: Option<Reply>,
}

impl Sent {
    /// Everything was accepted, from MAIL to the end of the message.
    pub fn accepted(&self) -> bool {
        self.refusal().is_none()
    }

    /// The first reply that refused something.
    pub fn refusal(&self) -> Option<&Reply> {
        let replies = std::iter::once(&self.mail).chain(&self.recipients).chain(&self.data).chain(&self.end);
        replies.into_iter().find(|reply| !reply.accepted())
    }

    /// The message was taken over for at least one recipient.
    pub fn delivered(&self) -> bool {
        self.end.as_ref().is_some_and(Reply::accepted)
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
    Closed,
}

pub struct Client {
    stream: Stream,
    read: Vec<u8>,
    /// Both directions, for whoever reads a failed test.
    transcript: String,
    headers: String,
}

impl Client {
    /// Connects and awaits the greeting.
    pub fn connect(source: Option<IpAddr>, server: SocketAddr) -> Self {
        let stream = connect_from(source, server).unwrap_or_else(|error| panic!("cannot connect to {server}: {error}"));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client {
            stream: Stream::Plain(stream),
            read: Vec::new(),
            transcript: String::new(),
            headers: String::new(),
        };
        let greeting = client.reply();
        assert_eq!(greeting.code, 220, "greeting: {greeting}");
        client
    }

    pub fn transcript(&self) -> &str {
        &self.transcript
    }

    /// Sends one line and awaits its reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.write(line);
        self.reply()
    }

    /// Sends all lines at once, then reads their replies.
    pub fn pipeline(&mut self, lines: &[&str]) -> Vec<Reply> {
        self.write(&lines.join("\r\n"));
        lines.iter().map(|_| self.reply()).collect()
    }

    /// A command that the test does not work without.
    fn must(&mut self, line: &str, code: u16) -> Reply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line}: {reply}\n{}", self.transcript);
        reply
    }

    pub fn ehlo(&mut self, name: &str) -> &mut Self {
        self.must(&format!("EHLO {name}"), 250);
        self
    }

    /// Postfix only: from here on the client has this address and a port of its own.
    pub fn pretend(&mut self, address: IpAddr) -> &mut Self {
        static PORT: AtomicU32 = AtomicU32::new(0);
        let port = 30_000 + PORT.fetch_add(1, Ordering::Relaxed) % 30_000;
        let address = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("IPV6:{address}"),
        };
        self.must("EHLO bed.test.example", 250);
        self.must(&format!("XCLIENT ADDR={address} PORT={port}"), 220);
        self
    }

    /// Any certificate will do.
    pub fn starttls(&mut self) -> &mut Self {
        self.must("STARTTLS", 220);
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::Closed) else { panic!("TLS twice") };
        let name = "mx.test.example".try_into().unwrap();
        let session = rustls::ClientConnection::new(any_certificate(), name).unwrap();
        self.stream = Stream::Tls(Box::new(rustls::StreamOwned::new(session, stream)));
        self
    }

    pub fn login(&mut self, login: &str, password: &str) -> &mut Self {
        self.must(&format!("AUTH PLAIN {}", base64(format!("\0{login}\0{password}").as_bytes())), 235);
        self
    }

    /// MAIL and one RCPT that must be accepted: an open transaction.
    pub fn open(&mut self, sender: &str, recipient: &str) -> &mut Self {
        self.must(&format!("MAIL FROM:<{sender}>"), 250);
        self.must(&format!("RCPT TO:<{recipient}>"), 250);
        self
    }

    /// One transaction, as a mail server would do it: on to DATA when at least one recipient was accepted, else RSET.
    pub fn send(&mut self, sender: &str, recipients: &[&str]) -> Sent {
        let mut sent = Sent {
            id: new_id(),
            mail: self.command(&format!("MAIL FROM:<{sender}>")),
            recipients: vec![],
            data: None,
            end: None,
        };
        if sent.mail.accepted() {
            sent.recipients =
                recipients.iter().map(|recipient| self.command(&format!("RCPT TO:<{recipient}>"))).collect();
        }
        if !sent.recipients.iter().any(Reply::accepted) {
            self.command("RSET");
            return sent;
        }
        let data = self.command("DATA");
        if data.accepted() {
            sent.end = Some(self.content(&sent.id));
        }
        sent.data = Some(data);
        sent
    }

    /// Every message from now on has this header: `NAME: VALUE`.
    pub fn with_header(&mut self, header: &str) -> &mut Self {
        self.headers.push_str(&format!("{header}\r\n"));
        self
    }

    /// The content of a message, after a 354.
    pub fn content(&mut self, id: &str) -> Reply {
        let headers = &self.headers;
        self.write(&format!("Subject: test\r\nX-Test-Id: {id}\r\n{headers}\r\nhello\r\n{LAST_LINE}\r\n."));
        self.reply()
    }

    /// The content of a message in one chunk (RFC 3030), instead of DATA.
    pub fn chunk(&mut self, id: &str) -> Reply {
        let text = format!("Subject: test\r\nX-Test-Id: {id}\r\n\r\nhello\r\n{LAST_LINE}");
        self.write(&format!("BDAT {} LAST\r\n{text}", text.len() + 2));
        self.reply()
    }

    /// Sends without awaiting anything.
    pub fn write(&mut self, lines: &str) {
        for line in lines.lines() {
            self.transcript.push_str(&format!("C: {line}\n"));
        }
        self.write_silently(lines);
    }

    /// Sends what would only fill the transcript.
    pub fn write_silently(&mut self, lines: &str) {
        let text = format!("{lines}\r\n");
        let result = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(text.as_bytes()),
            Stream::Tls(stream) => stream.write_all(text.as_bytes()).and_then(|()| stream.flush()),
            Stream::Closed => Err(io::ErrorKind::NotConnected.into()),
        };
        result.unwrap_or_else(|error| panic!("cannot send {lines:?}: {error}\n{}", self.transcript));
    }

    pub fn reply(&mut self) -> Reply {
        let mut lines = Vec::new();
        loop {
            let line = self.line().unwrap_or_else(|error| panic!("no reply: {error}\n{}", self.transcript));
            self.transcript.push_str(&format!("S: {line}\n"));
            let (code, last) =
                (line.get(..3).and_then(|code| code.parse().ok()), line.as_bytes().get(3) != Some(&b'-'));
            let code = code.unwrap_or_else(|| panic!("no SMTP reply: {line:?}\n{}", self.transcript));
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if last {
                return Reply { code, lines };
            }
        }
    }

    /// Awaits that the server ends the session by itself, with or without a last word.
    pub fn await_end_of_session(mut self) {
        match self.line() {
            Ok(line) => assert!(line.starts_with("421 "), "{line}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}"),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let mut buffer = [0; 4096];
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut buffer),
                Stream::Tls(stream) => stream.read(&mut buffer),
                Stream::Closed => Ok(0),
            };
            let length = match read {
                // A signal ends a read that has a time limit (signal(7)); it is no end of anything.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(&buffer[..length]);
        }
    }

    pub fn quit(mut self) {
        self.must("QUIT", 221);
    }

    /// Goes without a word.
    pub fn vanish(self) {}
}

/// A name for one message, unlike all others.
pub fn new_id() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{}.{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// `TcpStream::connect` cannot choose its own address.
fn connect_from(source: Option<IpAddr>, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&server.into())?;
    Ok(socket.into())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        (0..4)
            .map(move |i| if i <= chunk.len() { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char } else { '=' })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

fn any_certificate() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    Arc::new(
        config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth(),
    )
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

mod verifier {
    use super::AnyCertificate;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                certificate,
                signature,
                &self.0.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.0.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[test]
fn base64_pads() {
    assert_eq!(
        ["", "f", "fo", "foo", "\0a\0b"].map(|text| base64(text.as_bytes())),
        ["", "Zg==", "Zm8=", "Zm9v", "AGEAYg=="]
    );
}
