//! Sockets: within the job they go on as if nothing had been; those that lead outside are told.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::thread;

use ckpt_tests::job::{IMAGES, ROUNDS};
use ckpt_tests::sandbox::{BOUND, Sandbox};
use ckpt_tests::{Identity, Job, program_survives, refused, tool};

program_survives!(tcp_groups, Job::program("tcp_groups", 100, &[]));
program_survives!(unix_stream);
program_survives!(unix_datagram);
program_survives!(unix_packets);
program_survives!(unix_listening);
program_survives!(unix_rights);
program_survives!(unix_credentials);
program_survives!(unix_many_pairs, Job::program("unix_many_pairs", 150, &[]));
program_survives!(tcp_loopback, Job::program("tcp_loopback", 100, &[]));
program_survives!(tcp_listening);
program_survives!(unix_removed_directory);
program_survives!(tcp_urgent_half_closed);
program_survives!(udp_loopback);
program_survives!(netlink);
program_survives!(connecting, Job::program("tcp_connecting", 150, &["0"]));
program_survives!(connecting_with_time_out, Job::program("tcp_connecting", 150, &["600"]));

refused! { "refused_sockets", 0:
    packet: "a kind that is not kept (AF_PACKET)"
    vsock: "a kind that is not kept (AF_VSOCK)"
    alg: "a kind that is not kept (AF_ALG)"
    raw: "a kind that is not kept (raw IP)"
    mptcp: "a kind that is not kept (MPTCP)"
    out_of_band: "with out-of-band data"
    unix_waiting: "a connection that holds data and is not accepted yet"
    unix_abandoned_waiting: "a connection that its client has closed"
    tcp_waiting: "a connection that holds data and is not accepted yet"
}

/// Servers outside of the job: they send back what they get.
struct Outside {
    port: String,
    stream: PathBuf,
    log: PathBuf,
    _log: UnixDatagram,
}

impl Outside {
    fn new(sandbox: &Sandbox) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = tcp.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).expect("the same port over UDP");
        let (stream, log) = (sandbox.join("stream"), sandbox.join("log"));
        let unix = UnixListener::bind(&stream).expect("a socket in the sandbox");
        let logger = UnixDatagram::bind(&log).expect("a socket in the sandbox");
        for path in [&stream, &log] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod of a fresh socket");
        }
        // Nobody may be held up by a log that nobody reads.
        let read = logger.try_clone().expect("a duplicate");
        thread::spawn(move || while read.recv(&mut [0; 64]).is_ok() {});
        thread::spawn(move || tcp.incoming().flatten().for_each(|stream| echo(stream.try_clone().expect("a duplicate"), stream)));
        thread::spawn(move || {
            unix.incoming().flatten().for_each(|stream| echo(stream.try_clone().expect("a duplicate"), stream))
        });
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((n, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..n], from);
            }
        });
        Self { port: address.port().to_string(), stream, log, _log: logger }
    }

    fn job(&self) -> Job {
        let paths = [&self.stream, &self.log].map(|path| path.to_str().expect("a plain path"));
        Job::program("outside_sockets", ROUNDS / 2, &[&self.port, paths[0], paths[1]])
    }
}

fn echo(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) {
    thread::spawn(move || std::io::copy(&mut from, &mut to));
}

#[test]
fn connections_to_the_outside_are_reset_by_a_restart_and_by_nothing_else() {
    let servers = Sandbox::new(Identity::own());
    fs::set_permissions(servers.path(), fs::Permissions::from_mode(0o777)).expect("chmod of a fresh folder");
    let outside = Outside::new(&servers);
    let job = outside.job();
    let left = job.run_checkpointed(Identity::User);
    assert_eq!((left.code, &left.stdout[..]), (0, &b"lost 0 over TCP and 0 over UNIX\n"[..]), "{:?}", left.stderr);
    let plain = job.run_plain(Identity::User);
    assert_eq!((plain.code, &plain.stdout), (0, &left.stdout), "{:?}", plain.stderr);
    Identity::Root.run(|identity| {
        let killed = job.chain(identity, 1);
        assert_eq!((killed.code, &killed.stdout[..]), (0, &b"lost 1 over TCP and 1 over UNIX\n"[..]), "{:?}", killed.stderr);
    });
    let chained = job.chain(Identity::User, 3);
    assert_eq!((chained.code, &chained.stdout[..]), (0, &b"lost 3 over TCP and 3 over UNIX\n"[..]), "{:?}", chained.stderr);
    let told = |messages: &String| {
        messages.lines().any(|line| {
            line.starts_with("ckpt: sockets that lost their connection: ")
                && line.contains(&format!("127.0.0.1:{}", outside.port))
        })
    };
    assert!(chained.stderr[1..].iter().all(told), "{:?}", chained.stderr);
}

#[test]
fn strict_refuses_what_leads_outside() {
    let servers = Sandbox::new(Identity::own());
    let outside = Outside::new(&servers);
    let job = outside.job().option("--strict");
    let sandbox = job.sandbox(Identity::own());
    let mut running = job.launch(&sandbox);
    let (code, messages) = (running.wait(BOUND), running.stderr());
    assert_eq!((code, sandbox.read_text("out").as_str()), (0, "lost 0 over TCP and 0 over UNIX\n"), "{messages}");
    let refused =
        |line: &str| line.starts_with("ckpt: no checkpoint") && line.contains("which leads outside of the job (--strict)");
    assert!(messages.lines().any(refused) && sandbox.images(IMAGES).is_empty(), "{messages}");
    // A restart can be strict by itself.
    let job = outside.job();
    let sandbox = job.sandbox(Identity::own());
    let images = job.killed(&sandbox);
    let mut command = sandbox.command(tool("ckpt-restart"));
    command.arg("--strict").args(&images);
    let mut running = sandbox.start(command, "out", true, "err.1");
    let (code, messages) = (running.wait(BOUND), running.stderr());
    assert_eq!(code, 122, "{messages}");
    assert!(messages.contains("led outside of the job, and its connection is lost (--strict)"), "{messages}");
}

#[test]
fn an_address_that_somebody_else_has_is_named() {
    let job = Job::program("unix_listening", ROUNDS, &[]);
    let sandbox = job.sandbox(Identity::own());
    let images = job.killed(&sandbox);
    let path = sandbox.join("listener");
    fs::remove_file(&path).expect("the job's socket is there");
    let _other = UnixListener::bind(&path).expect("its name is free");
    let mut running = job.restart(&sandbox, &images, 1);
    let (code, messages) = (running.wait(BOUND), running.stderr());
    assert_eq!(code, 122, "{messages}");
    assert!(messages.contains(&format!("another process listens on {}", path.display())), "{messages}");
}

/// A server that does not set `SO_REUSEADDR` and closes first leaves its port in `TIME_WAIT` when it is killed; so does one that is half closed.
const LEAVING_PORTS: &str = r"
import socket, sys, time
server = socket.socket()
server.bind(('127.0.0.1', 0))
server.listen()
clients = []
for i in range(3):
    clients.append(socket.create_connection(server.getsockname()))
    accepted, _ = server.accept()
    clients.append(accepted)
clients[1].close()
clients[0].recv(1)
clients[0].close()
clients[3].shutdown(socket.SHUT_WR)
for i in range(30):
    time.sleep(0.05)
    clients[4].send(b'x')
    assert clients[5].recv(1) == b'x' and clients[2].recv(1) == b''
print('served')
";

#[test]
fn ports_of_a_killed_run_are_free_at_once() {
    for identity in [Identity::Root, Identity::User] {
        identity.run(|identity| {
            let job = Job::new(["python3", "-c", LEAVING_PORTS]);
            let chained = job.chain(identity, 3);
            assert_eq!((chained.code, &chained.stdout[..], chained.restarts), (0, &b"served\n"[..], 3), "{}", chained.told());
            assert!(!chained.told().contains("TIME_WAIT"), "{}", chained.told());
        });
    }
}

/// Where the kernel is told not to let go of a port, by `net.ipv4.tcp_rfc1337`, which the test sets in a network of its own.
#[test]
fn what_a_restart_waits_for_is_told() {
    let job = Job::new(["python3", "-c", LEAVING_PORTS]);
    let sandbox = job.sandbox(Identity::own());
    let launch = job.launch_command(&sandbox, "0.1");
    let script = format!(
        "ip link set lo up && echo 1 > /proc/sys/net/ipv4/tcp_rfc1337 || exit\n\
         \"$@\" &\n\
         while ! ls {IMAGES}/*.img > /dev/null 2>&1; do sleep 0.05; done; kill -USR2 $!; wait $!\n\
         exec {} {IMAGES}/*.img",
        tool("ckpt-restart").display()
    );
    let mut command = sandbox.command("unshare");
    command.args(["--user", "--map-root-user", "--net", "bash", "-c", &script, "bash"]);
    command.arg(launch.get_program()).args(launch.get_args());
    let mut running = sandbox.start(command, "out", false, "err");
    running.until_says("which a connection of the last run still has (TIME_WAIT)");
    running.kill();
}
