use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

const KEY: &str = "listen.milter";

fn listen(address: &ListenAddress) -> Result<Listener, BindError> {
    bind(address, &SocketOptions::default(), KEY, &Logger::silent())
}

fn unix(path: &Path) -> ListenAddress {
    ListenAddress::Unix(path.to_owned())
}

fn tcp(text: &str) -> ListenAddress {
    text.parse().unwrap()
}

/// The problem's part of the line; checks the part before it.
fn problem(address: &ListenAddress) -> String {
    let line = listen(address).expect_err("bound").to_string();
    let start = format!("{KEY}: cannot listen on {address}: ");
    line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}")).to_owned()
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_goes_with_its_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    for mode in [0o600, 0o666] {
        let options = SocketOptions { mode, ..SocketOptions::default() };
        let listener = bind(&unix(&path), &options, KEY, &Logger::silent()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(names_in(folder.path()), ["m.sock"]);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(names_in(folder.path()).is_empty());
    }
}

#[tokio::test]
async fn a_group_is_given_or_missed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    let own = nix::unistd::Group::from_gid(nix::unistd::getegid()).unwrap().unwrap();
    let options = SocketOptions { group: Some(own.name), ..SocketOptions::default() };
    drop(bind(&unix(&path), &options, KEY, &Logger::silent()).unwrap());

    let options = SocketOptions { group: Some("no-such-group".to_owned()), ..SocketOptions::default() };
    let error = bind(&unix(&path), &options, KEY, &Logger::silent()).unwrap_err();
    assert_eq!(
        error.problem.to_string(),
        r#"there is no group "no-such-group"; create it, or change listen.socket_group"#
    );
    assert!(names_in(folder.path()).is_empty());
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _listener = listen(&unix(&path)).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn what_a_running_process_uses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    let other = UnixListener::bind(&path).unwrap();
    let in_use = "it is in use by a running process; stop that one, or choose another address";
    assert_eq!(problem(&unix(&path)), in_use);
    // A process that hangs: it accepts nothing, and its backlog fills up.
    let mut waiting = Vec::new();
    let flags = nix::sys::socket::SockFlag::SOCK_NONBLOCK;
    loop {
        use nix::sys::socket::{AddressFamily, SockType, UnixAddr, connect, socket};
        use std::os::fd::AsRawFd;
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        if connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap()).is_err() {
            break;
        }
        waiting.push(client);
    }
    assert_eq!(problem(&unix(&path)), in_use);
    drop(other);

    fs::remove_file(&path).unwrap();
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert_eq!(problem(&unix(&path)), in_use);
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    fs::write(&path, "precious").unwrap();
    assert_eq!(
        problem(&unix(&path)),
        "a file is there already that is not a socket; remove it, or choose another path"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    assert_eq!(
        problem(&unix(&path.join("m.sock"))),
        format!("{} is not a folder; choose another path", path.display())
    );
    let missing = folder.path().join("missing");
    assert_eq!(
        problem(&unix(&missing.join("m.sock"))),
        format!("the folder {} does not exist; create it, or choose another path", missing.display())
    );
}

#[tokio::test]
async fn a_folder_that_everybody_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    set(0o777);
    let place = folder.path().display();
    assert_eq!(
        problem(&unix(&path)),
        format!("others may write to the folder {place}, and so replace the socket; run: chmod go-w {place}")
    );
    // As in /tmp, where nobody can replace what belongs to somebody else.
    set(0o1777);
    drop(listen(&unix(&path)).unwrap());
}

#[tokio::test]
async fn a_socket_that_took_the_place_of_ours_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    let first = listen(&unix(&path)).unwrap();
    fs::remove_file(&path).unwrap();
    let _second = listen(&unix(&path)).unwrap();
    drop(first);
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = listen(&tcp("inet:127.0.0.1:0")).unwrap();
    let port = first.local_port().unwrap();
    let line = listen(&tcp(&format!("inet:{port}@127.0.0.1"))).unwrap_err().to_string();
    assert_eq!(
        line,
        format!(
            "listen.milter: cannot listen on inet:127.0.0.1:{port}: it is in use by a running process; \
             stop that one, or choose another address"
        )
    );
}

#[tokio::test]
async fn other_errors_of_tcp_say_what_to_do() {
    // TEST-NET-1 of RFC 5737 is on no machine.
    assert!(problem(&tcp("inet:192.0.2.1:8891")).starts_with("this machine has no such address"));
    assert!(
        problem(&tcp("inet:no-such-host.invalid:8891")).starts_with(r#"the host name "no-such-host.invalid" cannot"#)
    );
    let denied = Problem::from_tcp(ErrorKind::PermissionDenied.into());
    assert!(denied.to_string().contains("CAP_NET_BIND_SERVICE"));
    let denied = Problem::from_folder(Path::new("/x"), ErrorKind::PermissionDenied.into());
    assert_eq!(
        denied.to_string(),
        "this user may not create files in /x; change its owner or mode, or choose another path"
    );
}

#[tokio::test]
async fn a_name_is_resolved() {
    let listener = listen(&tcp("inet:localhost:0")).unwrap();
    assert!(listener.local_port().is_some_and(|port| port > 0));
}
