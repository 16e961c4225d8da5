//! Connecting: which of the servers in `store.urls` to use, and how.

use super::connection::{Connection, text};
use super::error::{ConnectError, RESPONSE_TIMEOUT, is_unknown_command};
use super::slots::{Address, SlotMap};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult, Value,
};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a TCP or TLS connection may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// The servers of `store.urls`.
#[derive(Clone)]
pub(in crate::ledger::shared) struct Servers(Vec<ConnectionInfo>);

/// What the servers of `store.urls` turned out to be.
pub(super) enum Deployment {
    /// One server, or the master that sentinels watch.
    Single(Connection),
    /// A Cluster: the slots as one of its nodes knows them, and how its nodes are connected to.
    Cluster(SlotMap, NodeConnector),
}

/// Connects to any node of a Cluster in the same way (TLS, login) as to the one that was reached first.
#[derive(Clone)]
pub(super) struct NodeConnector(ConnectionInfo);

/// What a server says of itself (HELLO).
struct ServerInfo {
    mode: String,
    is_master: bool,
    server: String,
    version: String,
}

/// The oldest Redis that works; every Valkey does.
const OLDEST_REDIS: u32 = 7;

impl Servers {
    /// # Errors
    /// A URL is invalid.
    pub fn new(urls: &[String]) -> Result<Servers, RedisError> {
        let parse = |url: &String| {
            let info = url.as_str().into_connection_info()?;
            // CLIENT SETINFO is unknown to Redis 7.0.
            let settings = info.redis_settings().clone().set_skip_set_lib_name();
            Ok(info.set_redis_settings(settings))
        };
        urls.iter().map(parse).collect::<RedisResult<_>>().map(Servers)
    }

    /// Connects to the first server that is a master, to the Cluster that it belongs to, or to the master that it watches as a
    /// sentinel.
    ///
    /// # Errors
    /// What is wrong with each of them.
    pub(super) async fn connect(&self) -> Result<Deployment, ConnectError> {
        // All at once: one that hangs must not delay the others.
        let mut greetings = JoinSet::new();
        for info in self.0.iter().cloned() {
            greetings.spawn(async move { (greet_server_or_sentinel(&info).await, info) });
        }
        let mut errors = Vec::new();
        while let Some(Ok((greeted, info))) = greetings.join_next().await {
            let connected = match greeted {
                Ok((connection, server)) => deployment_of(&info, connection, &server).await,
                Err(error) => Err(error),
            };
            match connected {
                Ok(deployment) => return Ok(deployment),
                Err(error) => errors.push(error.at(info.addr())),
            }
        }
        Err(ConnectError::All(errors))
    }
}

async fn deployment_of(
    info: &ConnectionInfo,
    connection: Connection,
    server: &ServerInfo,
) -> Result<Deployment, ConnectError> {
    server.check_version()?;
    match &*server.mode {
        "cluster" => {
            let connector = NodeConnector(info.clone());
            let slots = slots_known_to(&connection, connector.host()).await.ok_or(ConnectError::NoSlots)?;
            Ok(Deployment::Cluster(slots, connector))
        }
        "sentinel" => {
            let sentinel = connection;
            let master = master_of(&sentinel, info).await?;
            let (connection, server) = greet(&master).await.map_err(|error| error.at(master.addr()))?;
            server.check_version()?;
            if !server.is_master {
                return Err(ConnectError::Sentinel(format!("{} is not a master yet", master.addr())));
            }
            // A sentinel that hung until now may not know yet that another server was promoted.
            match master_of(&sentinel, info).await?.addr() == master.addr() {
                true => Ok(Deployment::Single(connection)),
                false => Err(ConnectError::Sentinel(format!("{} is no longer the master", master.addr()))),
            }
        }
        _ if server.is_master => Ok(Deployment::Single(connection)),
        _ => Err(ConnectError::Replica),
    }
}

impl NodeConnector {
    /// # Errors
    /// The node is unreachable, or no master.
    pub async fn connect(&self, address: &Address) -> Result<Connection, ConnectError> {
        let (connection, server) = greet(&at_address(&self.0, address)).await?;
        server.check_version()?;
        if server.is_master { Ok(connection) } else { Err(ConnectError::Replica) }
    }

    /// The host of the node that was reached first.
    pub fn host(&self) -> &str {
        match self.0.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "localhost",
        }
    }
}

/// What a node, reached at `host`, knows of all nodes' slots. `None`: nothing.
pub(super) async fn slots_known_to(node: &Connection, host: &str) -> Option<SlotMap> {
    let response = node.query(redis::cmd("CLUSTER").arg("SLOTS")).await.ok()?;
    SlotMap::parse(&response, host).filter(|slots| !slots.0.is_empty())
}

/// Sentinels often need no password where the servers do.
async fn greet_server_or_sentinel(info: &ConnectionInfo) -> Result<(Connection, ServerInfo), ConnectError> {
    let error = match greet(info).await {
        Err(ConnectError::Redis(error)) if !error.is_io_error() => ConnectError::Redis(error),
        greeted => return greeted,
    };
    match greet(&without_login(info)).await {
        Ok(greeted) if greeted.1.mode == "sentinel" => Ok(greeted),
        _ => Err(error),
    }
}

async fn greet(info: &ConnectionInfo) -> Result<(Connection, ServerInfo), ConnectError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(HANDSHAKE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let opened: MultiplexedConnection =
        Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await?;
    let connection = Connection::new(opened);
    match connection.query(&redis::cmd("HELLO")).await {
        Ok(response) => Ok((connection, ServerInfo::parse(&response))),
        Err(error) if is_unknown_command(&error) => Err(ConnectError::TooOld("the server".to_owned())),
        Err(error) => Err(error.into()),
    }
}

impl ServerInfo {
    fn parse(response: &Value) -> ServerInfo {
        let mut server = ServerInfo {
            mode: "standalone".to_owned(),
            is_master: true,
            server: String::new(),
            version: String::new(),
        };
        let mut note = |name: &Value, value: &Value| match (text(name).as_deref(), text(value)) {
            (Some("mode"), Some(mode)) => server.mode = mode,
            (Some("role"), Some(role)) => server.is_master = role == "master",
            (Some("server"), Some(name)) => server.server = name,
            (Some("version"), Some(version)) => server.version = version,
            _ => {}
        };
        match response {
            Value::Array(items) => items.chunks_exact(2).for_each(|pair| note(&pair[0], &pair[1])),
            Value::Map(pairs) => pairs.iter().for_each(|(name, value)| note(name, value)),
            _ => {}
        }
        server
    }

    fn check_version(&self) -> Result<(), ConnectError> {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if self.server == "redis" && major < OLDEST_REDIS => {
                Err(ConnectError::TooOld(format!("Redis {}", self.version)))
            }
            _ => Ok(()),
        }
    }
}

/// The master that a sentinel watches, with the login of the URL.
async fn master_of(sentinel: &Connection, info: &ConnectionInfo) -> Result<ConnectionInfo, ConnectError> {
    let query = async |words: &[&str]| sentinel.query(redis::cmd("SENTINEL").arg(words)).await;
    let Value::Array(masters) = query(&["MASTERS"]).await? else {
        return Err(ConnectError::Sentinel("the sentinel's response to SENTINEL MASTERS is invalid".to_owned()));
    };
    let names: Vec<String> = masters.iter().filter_map(name_of_master).collect();
    let [name] = &names[..] else {
        let count = names.len();
        return Err(ConnectError::Sentinel(format!("the sentinel watches {count} masters; it must watch exactly one")));
    };
    let address = query(&["GET-MASTER-ADDR-BY-NAME", name]).await?;
    let (host, port) = match &address {
        Value::Array(fields) if let [host, port] = &fields[..] => {
            (text(host), text(port).and_then(|port| port.parse().ok()))
        }
        _ => (None, None),
    };
    match (host, port) {
        (Some(host), Some(port)) => Ok(at_address(info, &(host, port))),
        _ => Err(ConnectError::Sentinel(format!("the sentinel does not know the address of {name}"))),
    }
}

/// The same login and TLS at another address.
fn at_address(info: &ConnectionInfo, (host, port): &Address) -> ConnectionInfo {
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
