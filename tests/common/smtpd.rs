//! An smtpd of Postfix as the policy service sees it (SMTPD_POLICY_README).

use super::soon;
use relaykeeper::listen::Origin;
use relaykeeper::policy_service::PolicyService;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

pub struct Smtpd {
    stream: DuplexStream,
    pub service: JoinHandle<()>,
    pid: u32,
    messages: u32,
}

/// What is the same in all requests of a transaction.
#[derive(Clone, Debug)]
pub struct Mail {
    pub client: String,
    pub port: u16,
    pub server: String,
    pub server_port: u16,
    pub helo: String,
    pub tls: String,
    pub login: String,
    /// `sasl_method`, where there is a login.
    pub sasl_method: String,
    pub sender: String,
    pub instance: String,
    /// `SIZE=`, and the real one at the end of the message.
    pub size: u64,
    /// At the end of the message; empty behind smtpd_proxy_filter.
    pub queue_id: String,
}

impl Default for Mail {
    fn default() -> Mail {
        Mail {
            client: "192.0.2.7".into(),
            port: 4711,
            server: "198.51.100.25".into(),
            server_port: 25,
            helo: "mx.acme.example".into(),
            tls: String::new(),
            login: String::new(),
            sasl_method: "PLAIN".into(),
            sender: "ann@acme.example".into(),
            instance: "1a2b.67890abc.12345.0".into(),
            size: 0,
            queue_id: "3F2A1C0".into(),
        }
    }
}

impl Mail {
    /// A request, with the attributes in Postfix's order.
    pub fn request(&self, state: &str, recipient: &str, recipient_count: u64, context: &str) -> String {
        let Mail { client, port, server, server_port, helo, tls, login, sasl_method, sender, instance, size, queue_id } =
            self;
        let queue_id = if state == "END-OF-MESSAGE" { queue_id } else { "" };
        let mut text = String::new();
        for (name, value) in [
            ("request", "smtpd_access_policy"),
            ("protocol_state", state),
            ("protocol_name", "ESMTP"),
            ("client_address", client),
            ("client_name", "unknown"),
            ("client_port", &port.to_string()),
            ("reverse_client_name", "unknown"),
            ("server_address", server),
            ("server_port", &server_port.to_string()),
            ("helo_name", helo),
            ("sender", sender),
            ("recipient", recipient),
            ("recipient_count", &recipient_count.to_string()),
            ("queue_id", queue_id),
            ("instance", instance),
            ("size", &size.to_string()),
            ("etrn_domain", ""),
            ("stress", ""),
            ("sasl_method", if login.is_empty() { "" } else { sasl_method }),
            ("sasl_username", login),
            ("sasl_sender", ""),
            ("encryption_protocol", tls),
            ("encryption_cipher", ""),
            ("encryption_keysize", if tls.is_empty() { "0" } else { "256" }),
            ("policy_context", context),
        ] {
            let _ = writeln!(text, "{name}={value}");
        }
        text.push('\n');
        text
    }

    pub fn at_recipient(&self, recipient: &str) -> String {
        self.request("RCPT", recipient, 0, "")
    }

    /// `recipient` as Postfix fills it: only when it is the only one.
    pub fn at_end(&self, recipients: &[&str]) -> String {
        let lone = if let [lone] = recipients { lone } else { "" };
        self.request("END-OF-MESSAGE", lone, recipients.len() as u64, "")
    }
}

/// What Postfix makes of a path that a client typed (`extract_addr` in smtpd.c): without source route, comments and quotes.
pub fn internal_form(typed: &str) -> String {
    let mailbox = typed.strip_prefix('@').and_then(|route| route.split_once(':')).map_or(typed, |(_, mailbox)| mailbox);
    let (mut internal, mut is_quoted, mut comments) = (String::new(), false, 0);
    let mut characters = mailbox.chars();
    while let Some(c) = characters.next() {
        match c {
            '(' if !is_quoted => comments += 1,
            ')' if comments > 0 => comments -= 1,
            _ if comments > 0 => {}
            '"' => is_quoted = !is_quoted,
            '\\' => internal.extend(characters.next()),
            c => internal.push(c),
        }
    }
    internal
}

impl Smtpd {
    pub fn connect(service: &Arc<PolicyService>, origin: impl Into<Origin>, pid: u32) -> Smtpd {
        let origin = origin.into();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = service.clone();
        let service = tokio::spawn(async move { service.serve_connection(theirs, origin).await });
        Smtpd { stream: ours, service, pid, messages: 0 }
    }

    /// The next transaction of this process.
    pub fn next_mail(&mut self) -> Mail {
        self.messages += 1;
        Mail { instance: format!("{:x}.67890abc.12345.{}", self.pid, self.messages), ..Mail::default() }
    }

    /// The action that is answered.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn ask(&mut self, request: &str) -> String {
        self.try_ask(request).await.unwrap_or_else(|error| panic!("{error} after {request}"))
    }

    /// The action, or the error: an early end if the connection was closed without an answer.
    pub async fn try_ask(&mut self, request: &str) -> io::Result<String> {
        self.send(request.as_bytes()).await?;
        self.answer().await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        soon("the request is taken", self.stream.write_all(bytes)).await
    }

    pub async fn answer(&mut self) -> io::Result<String> {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n\n") {
            answer.push(soon("an answer", self.stream.read_u8()).await?);
        }
        let answer = String::from_utf8(answer).expect("an answer is text");
        let action = answer.strip_prefix("action=").and_then(|rest| rest.strip_suffix("\n\n"));
        let action = action.unwrap_or_else(|| panic!("no answer of one action: {answer:?}"));
        assert!(!action.contains('\n'), "one action: {answer:?}");
        Ok(action.to_owned())
    }

    /// No more requests come; what is answered until the connection is closed.
    pub async fn close_and_read_rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.shutdown().await;
        let _ = soon("the connection is closed", self.stream.read_to_end(&mut rest)).await;
        rest
    }

    /// What comes until the connection is closed from the other side.
    pub async fn read_until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = soon("the connection is closed", self.stream.read_to_end(&mut rest)).await;
        rest
    }
}
