//! Connecting: which of the servers named in `store.urls` to talk to, and how.

use super::link::TRY;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult,
    Value,
};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a TCP or TLS connection may take.
const CONNECT: Duration = Duration::from_secs(1);

/// A connection that everybody shares: questions are sent as they come, without waiting for earlier answers.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// The servers of `store.urls`.
#[derive(Clone)]
pub(super) struct Servers(Vec<ConnectionInfo>);

/// What a server says of itself.
struct Hello {
    mode: String,
    is_master: bool,
    server: String,
    version: String,
}

/// The oldest Redis that is known to do; any Valkey does.
const OLDEST_REDIS: u32 = 7;

impl Connection {
    pub async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        self.send(command).await.and_then(Value::extract_error)
    }

    /// Errors of the server may be in the answer.
    pub async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Connection::Single(connection) => connection.clone().send_packed_command(command).await,
            Connection::Cluster(connection) => connection.clone().req_packed_command(command).await,
        }
    }

    /// Asks every master.
    pub async fn ask_all(&self, command: Cmd) -> RedisResult<Value> {
        let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        match self {
            Connection::Single(_) => self.ask(&command).await,
            Connection::Cluster(connection) => connection.clone().route_command(command, everywhere).await,
        }
    }

    /// What the masters evict when their memory is used up, if it is anything: `maxmemory-policy`. `None` also if the user
    /// may not ask.
    pub async fn evicts(&self) -> Option<String> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let answers = match self.ask_all(command).await.ok()? {
            Value::Map(of_each) => of_each.into_iter().map(|(_, answer)| answer).collect(),
            answer => vec![answer],
        };
        let policy_of = |answer: &Value| {
            let text = text(answer)?;
            let policy = text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?.trim();
            (policy != "noeviction").then(|| policy.to_owned())
        };
        answers.iter().find_map(policy_of)
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self, Connection::Cluster(_))
    }
}

impl Servers {
    /// # Errors
    /// A URL that cannot be read.
    pub fn new(urls: &[String]) -> Result<Servers, RedisError> {
        let read = |url: &String| {
            let info = url.as_str().into_connection_info()?;
            // Redis 7.0 does not know the command that would tell the name of the library.
            let settings = info.redis_settings().clone().set_skip_set_lib_name();
            Ok(info.set_redis_settings(settings))
        };
        urls.iter().map(read).collect::<RedisResult<_>>().map(Servers)
    }

    /// Connects to the first server that is a master, to the cluster that it is a node of, or to the master that it is a
    /// sentinel of.
    ///
    /// # Errors
    /// What is wrong with each of them.
    pub async fn connect(&self) -> Result<Connection, String> {
        // At once: one that hangs is not to keep us from the others.
        let mut greetings = JoinSet::new();
        for info in self.0.iter().cloned() {
            greetings.spawn(async move { (greet_any(&info).await, info) });
        }
        let mut troubles = Vec::new();
        while let Some(Ok((greeted, info))) = greetings.join_next().await {
            let connected = match greeted {
                Ok((connection, hello)) => self.connect_by(&info, connection, &hello).await,
                Err(error) if is_unknown_command(&error) => {
                    Err(format!("it is too old: it must be Redis {OLDEST_REDIS}.0 or newer, or Valkey"))
                }
                Err(error) => Err(in_words(&error)),
            };
            match connected {
                Ok(connection) => return Ok(connection),
                Err(trouble) => troubles.push(format!("{}: {trouble}", info.addr())),
            }
        }
        Err(troubles.join("; "))
    }

    async fn connect_by(
        &self,
        info: &ConnectionInfo,
        connection: MultiplexedConnection,
        hello: &Hello,
    ) -> Result<Connection, String> {
        hello.check()?;
        match &*hello.mode {
            "cluster" => self.connect_to_cluster().await.map(Connection::Cluster).map_err(|error| in_words(&error)),
            "sentinel" => {
                let master = master_of(&connection, info).await?;
                let (connection, hello) = greet(&master).await.map_err(|error| in_words(&error))?;
                hello.check()?;
                match hello.is_master {
                    true => Ok(Connection::Single(connection)),
                    false => Err(format!("{} is no master yet", master.addr())),
                }
            }
            _ if hello.is_master => Ok(Connection::Single(connection)),
            _ => Err("it is a replica".to_owned()),
        }
    }

    async fn connect_to_cluster(&self) -> RedisResult<ClusterConnection> {
        let client = ClusterClient::builder(self.0.iter().cloned())
            .connection_timeout(CONNECT)
            .response_timeout(TRY)
            // A question that went wrong is asked again by us, with a deadline.
            .retries(2)
            .min_retry_wait(10)
            .max_retry_wait(200)
            .build()?;
        client.get_async_connection().await
    }
}

/// Sentinels often need no password where the servers do.
async fn greet_any(info: &ConnectionInfo) -> RedisResult<(MultiplexedConnection, Hello)> {
    let error = match greet(info).await {
        Err(error) if !error.is_io_error() => error,
        greeted => return greeted,
    };
    match greet(&without_login(info)).await {
        Ok(greeted) if greeted.1.mode == "sentinel" => Ok(greeted),
        _ => Err(error),
    }
}

async fn greet(info: &ConnectionInfo) -> RedisResult<(MultiplexedConnection, Hello)> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(TRY));
    let connection = Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await?;
    let answer = Connection::Single(connection.clone()).ask(&redis::cmd("HELLO")).await?;
    Ok((connection, Hello::read(&answer)))
}

impl Hello {
    fn read(answer: &Value) -> Hello {
        let mut hello =
            Hello { mode: "standalone".to_owned(), is_master: true, server: String::new(), version: String::new() };
        let mut note = |name: &Value, value: &Value| match (text(name).as_deref(), text(value)) {
            (Some("mode"), Some(mode)) => hello.mode = mode,
            (Some("role"), Some(role)) => hello.is_master = role == "master",
            (Some("server"), Some(server)) => hello.server = server,
            (Some("version"), Some(version)) => hello.version = version,
            _ => {}
        };
        match answer {
            Value::Array(items) => items.chunks_exact(2).for_each(|pair| note(&pair[0], &pair[1])),
            Value::Map(pairs) => pairs.iter().for_each(|(name, value)| note(name, value)),
            _ => {}
        }
        hello
    }

    /// # Errors
    /// It is too old.
    fn check(&self) -> Result<(), String> {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if self.server == "redis" && major < OLDEST_REDIS => {
                Err(format!("Redis {} is too old: it must be Redis {OLDEST_REDIS}.0 or newer, or Valkey", self.version))
            }
            _ => Ok(()),
        }
    }
}

/// The master that a sentinel watches, with the login that the URL has.
async fn master_of(sentinel: &MultiplexedConnection, info: &ConnectionInfo) -> Result<ConnectionInfo, String> {
    let ask = async |words: &[&str]| {
        let mut command = redis::cmd("SENTINEL");
        command.arg(words);
        Connection::Single(sentinel.clone()).ask(&command).await.map_err(|error| in_words(&error))
    };
    let Value::Array(masters) = ask(&["MASTERS"]).await? else { return Err("the sentinel makes no sense".to_owned()) };
    let names: Vec<String> = masters.iter().filter_map(name_of_master).collect();
    let [name] = &names[..] else {
        return Err(format!("the sentinel watches {} masters, and must watch one", names.len()));
    };
    let address = ask(&["GET-MASTER-ADDR-BY-NAME", name]).await?;
    let Value::Array(parts) = &address else { return Err(format!("the sentinel knows no address of {name}")) };
    let (host, port) = match &parts[..] {
        [host, port] => (text(host), text(port).and_then(|port| port.parse().ok())),
        _ => (None, None),
    };
    let (Some(host), Some(port)) = (host, port) else {
        return Err(format!("the sentinel knows no address of {name}"));
    };
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    Ok(info.clone().set_addr(address))
}

fn name_of_master(master: &Value) -> Option<String> {
    match master {
        Value::Array(fields) => fields
            .chunks_exact(2)
            .find(|pair| text(&pair[0]).as_deref() == Some("name"))
            .and_then(|pair| text(&pair[1])),
        Value::Map(fields) => {
            fields.iter().find(|(name, _)| text(name).as_deref() == Some("name")).and_then(|(_, value)| text(value))
        }
        _ => None,
    }
}

fn without_login(info: &ConnectionInfo) -> ConnectionInfo {
    info.clone().set_redis_settings(redis::RedisConnectionInfo::default().set_skip_set_lib_name())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// The server does not know the command, or is configured not to.
pub(super) fn is_unknown_command(error: &RedisError) -> bool {
    error.detail().is_some_and(|words| words.starts_with("unknown command"))
}

/// On one line.
pub(super) fn in_words(error: &RedisError) -> String {
    error.to_string().replace(['\r', '\n'], " ")
}
