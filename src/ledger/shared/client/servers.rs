//! Connecting: which of the servers named in `store.urls` to talk to, and how.

use super::connection::{Connection, TRY, in_words, is_unknown_command, text};
use super::slots::{Address, Slots};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, Value,
};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a TCP or TLS connection may take.
const CONNECT: Duration = Duration::from_secs(1);

/// The servers of `store.urls`.
#[derive(Clone)]
pub(in crate::ledger::shared) struct Servers(Vec<ConnectionInfo>);

/// What the servers of `store.urls` are.
pub(in crate::ledger::shared) enum Deployment {
    /// One server.
    Single(Connection),
    /// A Cluster, as one of its connector knows it, and how all of them are connected to.
    Cluster(Slots, NodeConnector),
}

/// How the connector of a Cluster are connected to: as the one that was reached first, at other addresses.
#[derive(Clone)]
pub(in crate::ledger::shared) struct NodeConnector(ConnectionInfo);

/// What a server says of itself.
struct ServerInfo {
    mode: String,
    is_master: bool,
    server: String,
    version: String,
}

/// The oldest Redis that is known to do; any Valkey does.
const OLDEST_REDIS: u32 = 7;

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
    pub async fn connect(&self) -> Result<Deployment, String> {
        // At once: one that hangs is not to keep us from the others.
        let mut greetings = JoinSet::new();
        for info in self.0.iter().cloned() {
            greetings.spawn(async move { (greet_any(&info).await, info) });
        }
        let mut troubles = Vec::new();
        while let Some(Ok((greeted, info))) = greetings.join_next().await {
            let connected = match greeted {
                Ok((connection, info_of_server)) => self.connect_by(&info, connection, &info_of_server).await,
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
        connection: Connection,
        info_of_server: &ServerInfo,
    ) -> Result<Deployment, String> {
        info_of_server.check()?;
        match &*info_of_server.mode {
            "cluster" => {
                let connector = NodeConnector(info.clone());
                let slots = NodeConnector::slots_by(&connection, connector.host())
                    .await
                    .ok_or("it knows no slots of the cluster")?;
                Ok(Deployment::Cluster(slots, connector))
            }
            "sentinel" => {
                let sentinel = connection;
                let master = master_of(&sentinel, info).await?;
                let (connection, info_of_server) = greet(&master).await.map_err(|error| in_words(&error))?;
                info_of_server.check()?;
                if !info_of_server.is_master {
                    return Err(format!("{} is no master yet", master.addr()));
                }
                // One that stood still until now does not know yet that another took its place.
                match master_of(&sentinel, info).await?.addr() == master.addr() {
                    true => Ok(Deployment::Single(connection)),
                    false => Err(format!("{} is no master any more", master.addr())),
                }
            }
            _ if info_of_server.is_master => Ok(Deployment::Single(connection)),
            _ => Err("it is a replica".to_owned()),
        }
    }
}

impl NodeConnector {
    /// # Errors
    /// It cannot be reached, or is no master.
    pub async fn connect(&self, address: &Address) -> Result<Connection, String> {
        let (connection, info_of_server) = greet(&at(&self.0, address)).await.map_err(|error| in_words(&error))?;
        info_of_server.check()?;
        if info_of_server.is_master { Ok(connection) } else { Err("it is a replica".to_owned()) }
    }

    /// Where the node was reached that was reached first.
    pub fn host(&self) -> &str {
        match self.0.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "localhost",
        }
    }

    /// What a node, reached at `host`, knows of all connector' slots. `None`: nothing.
    pub async fn slots_by(node: &Connection, host: &str) -> Option<Slots> {
        let answer = node.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.ok()?;
        Slots::read(&answer, host).filter(|slots| !slots.0.is_empty())
    }
}

/// Sentinels often need no password where the servers do.
async fn greet_any(info: &ConnectionInfo) -> RedisResult<(Connection, ServerInfo)> {
    let error = match greet(info).await {
        Err(error) if !error.is_io_error() => error,
        greeted => return greeted,
    };
    match greet(&without_login(info)).await {
        Ok(greeted) if greeted.1.mode == "sentinel" => Ok(greeted),
        _ => Err(error),
    }
}

async fn greet(info: &ConnectionInfo) -> RedisResult<(Connection, ServerInfo)> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(TRY));
    let opened: MultiplexedConnection =
        Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await?;
    let connection = Connection::new(opened);
    let answer = connection.ask(&redis::cmd("HELLO")).await?;
    Ok((connection, ServerInfo::read(&answer)))
}

impl ServerInfo {
    fn read(answer: &Value) -> ServerInfo {
        let mut info_of_server = ServerInfo {
            mode: "standalone".to_owned(),
            is_master: true,
            server: String::new(),
            version: String::new(),
        };
        let mut note = |name: &Value, value: &Value| match (text(name).as_deref(), text(value)) {
            (Some("mode"), Some(mode)) => info_of_server.mode = mode,
            (Some("role"), Some(role)) => info_of_server.is_master = role == "master",
            (Some("server"), Some(server)) => info_of_server.server = server,
            (Some("version"), Some(version)) => info_of_server.version = version,
            _ => {}
        };
        match answer {
            Value::Array(items) => items.chunks_exact(2).for_each(|pair| note(&pair[0], &pair[1])),
            Value::Map(pairs) => pairs.iter().for_each(|(name, value)| note(name, value)),
            _ => {}
        }
        info_of_server
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
async fn master_of(sentinel: &Connection, info: &ConnectionInfo) -> Result<ConnectionInfo, String> {
    let ask = async |words: &[&str]| {
        let mut command = redis::cmd("SENTINEL");
        command.arg(words);
        sentinel.ask(&command).await.map_err(|error| in_words(&error))
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
    Ok(at(info, &(host, port)))
}

/// The same at another address.
fn at(info: &ConnectionInfo, (host, port): &Address) -> ConnectionInfo {
    let (host, port) = (host.clone(), *port);
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
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
