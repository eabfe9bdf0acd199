//! Networks as the kernel makes them: everything in network namespaces of the test's own, with real packets.
//!
//! The scene: a host with two networks of two containers and one, one internal network, and a neighbour on the wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use creel_net::dns;
use creel_net::nft::{self, Table};
use creel_net::{Bridge, Gateway, Links, Namespace, Pair, Published, Route, Segment, Transport, table};
use ipnet::IpNet;

fn can_run() -> bool {
    if std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        return true;
    }
    assert!(std::env::var_os("CREEL_TEST_ROOT").is_none(), "CREEL_TEST_ROOT is set but this is not root");
    eprintln!("skipped: needs root");
    false
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Writes a setting of the namespace that the calling thread is in.
fn sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap_or_else(|e| panic!("{path}: {e}"));
}

struct Host {
    namespace: Namespace,
    links: Links,
}

impl Host {
    fn new() -> Host {
        let namespace = Namespace::create().unwrap();
        let links = namespace.links().unwrap();
        namespace
            .enter(|| {
                sysctl("ipv4/ip_forward", "1");
                sysctl("ipv6/conf/all/forwarding", "1");
                Ok(())
            })
            .unwrap();
        Host { namespace, links }
    }

    fn bridge(&mut self, name: &str, own: &[&str]) -> u32 {
        let mac = [2, 0, 0, 0, 0, name.len() as u8];
        let bridge = self.links.add_bridge(&Bridge { name, mtu: Some(1400), mac }).unwrap();
        assert_eq!((bridge.is_up, bridge.mtu, bridge.mac), (true, 1400, Some(mac)));
        for address in own {
            self.links.add_address(bridge.index, net(address)).unwrap();
        }
        // A published port at 127.0.0.1 needs it.
        self.namespace
            .enter(|| {
                sysctl(&format!("ipv4/conf/{name}/route_localnet"), "1");
                Ok(())
            })
            .unwrap();
        bridge.index
    }

    /// A container on a bridge: its namespace.
    fn container(&mut self, bridge: u32, name: &str, own: &[&str], gateways: &[&str]) -> Namespace {
        let inside = Namespace::create().unwrap();
        let mac = [2, 0x42, 0, 0, bridge as u8, name.as_bytes()[name.len() - 1]];
        let pair = Pair {
            name,
            bridge,
            is_isolated: name.starts_with("iso"),
            is_hairpin: true,
            namespace: &inside,
            inside: "eth0",
            mac,
            mtu: Some(1400),
        };
        self.links.add_pair(&pair).unwrap();
        inside
            .enter(|| {
                // Else it would take its own question, which comes back to it, for somebody else's answer.
                sysctl("ipv6/conf/eth0/accept_dad", "0");
                Ok(())
            })
            .unwrap();
        let mut links = inside.links().unwrap();
        let eth0 = links.get("eth0").unwrap();
        assert_eq!((eth0.mac, eth0.mtu, eth0.kind.as_deref()), (Some(mac), 1400, Some("veth")));
        links.set_up(eth0.index).unwrap();
        for address in own {
            links.add_address(eth0.index, net(address)).unwrap();
        }
        for gateway in gateways {
            let gateway: IpAddr = gateway.parse().unwrap();
            let to = net(if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" });
            let route = Route { to, gateway: Some(gateway), link: Some(eth0.index), metric: None };
            links.add_route(&route).unwrap();
            assert!(links.routes().unwrap().iter().any(|there| there.gateway == Some(gateway)));
        }
        inside
    }

    fn load(&self, table: &Table) {
        self.namespace.enter(|| nft::apply(table)).unwrap();
    }
}

/// A server that answers with its name and whom it sees; it ends with the test.
fn serve(inside: &Namespace, port: u16, name: &'static str) {
    let v6 = inside
        .enter(|| {
            let any: SocketAddr = format!("[::]:{port}").parse().unwrap();
            Ok((TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap()))
        })
        .unwrap();
    let (tcp, udp) = v6;
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = stream.write_all(format!("{name} {}", peer.ip().to_canonical()).as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buf = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buf) {
            let _ = udp.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer);
        }
    });
}

const PATIENCE: Duration = Duration::from_millis(700);

/// What a client in a namespace hears by TCP; an error's kind in words if nothing.
fn tcp(from: &Namespace, to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    from.enter(|| {
        let heard = TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        Ok(heard.unwrap_or_else(|e| format!("{:?}", e.kind())))
    })
    .unwrap()
}

/// The same by UDP.
fn udp(from: &Namespace, to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    from.enter(|| {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let heard = socket.connect(to).and_then(|()| {
            socket.send(b"x")?;
            let mut buf = [0; 64];
            let n = socket.recv(&mut buf)?;
            Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
        });
        Ok(heard.unwrap_or_else(|e| format!("{:?}", e.kind())))
    })
    .unwrap()
}

fn segment(bridge: &str, subnets: &[&str]) -> Segment {
    Segment {
        bridge: bridge.into(),
        subnets: subnets.iter().map(|subnet| net(subnet)).collect(),
        is_internal: false,
        icc: true,
        masquerade: true,
        gateway: Gateway::Nat,
    }
}

fn port(at: &str, transport: Transport, to: &str) -> Published {
    Published { at: at.parse().unwrap(), transport, to: to.parse().unwrap() }
}

struct Scene {
    host: Host,
    a1: Namespace,
    a2: Namespace,
    b1: Namespace,
    inner: Namespace,
    neighbour: Namespace,
}

fn scene() -> Scene {
    let mut host = Host::new();
    let a = host.bridge("net-a", &["172.30.0.1/24", "fd00:a::1/64"]);
    let b = host.bridge("net-b", &["172.30.1.1/24", "fd00:b::1/64"]);
    let i = host.bridge("net-i", &["172.30.2.1/24"]);
    let gateways = ["172.30.0.1", "fd00:a::1"];
    let a1 = host.container(a, "va1", &["172.30.0.2/24", "fd00:a::2/64"], &gateways);
    let a2 = host.container(a, "va2", &["172.30.0.3/24", "fd00:a::3/64"], &gateways);
    let b1 = host.container(b, "vb1", &["172.30.1.2/24", "fd00:b::2/64"], &["172.30.1.1", "fd00:b::1"]);
    let inner = host.container(i, "vi1", &["172.30.2.2/24"], &["172.30.2.1"]);
    // The wire: a bridge that is no network of ours, with the neighbour at its other end.
    let wire = host.bridge("wire", &["192.0.2.1/24", "2001:db8::1/64"]);
    let neighbour =
        host.container(wire, "wire1", &["192.0.2.2/24", "2001:db8::2/64"], &["192.0.2.1", "2001:db8::1"]);
    for (inside, name) in
        [(&a1, "a1"), (&a2, "a2"), (&b1, "b1"), (&inner, "inner"), (&neighbour, "neighbour")]
    {
        serve(inside, 80, name);
    }
    Scene { host, a1, a2, b1, inner, neighbour }
}

fn segments() -> Vec<Segment> {
    vec![
        segment("net-a", &["172.30.0.0/24", "fd00:a::/64"]),
        segment("net-b", &["172.30.1.0/24", "fd00:b::/64"]),
        Segment { is_internal: true, ..segment("net-i", &["172.30.2.0/24"]) },
    ]
}

#[test]
fn who_reaches_whom() {
    if !can_run() {
        return;
    }
    let s = scene();
    let published = [
        port("0.0.0.0:8080", Transport::Tcp, "172.30.0.2:80"),
        port("0.0.0.0:8080", Transport::Udp, "172.30.0.2:80"),
        port("[::]:8080", Transport::Tcp, "[fd00:a::2]:80"),
        port("[::]:8080", Transport::Udp, "[fd00:a::2]:80"),
        port("127.0.0.1:8081", Transport::Tcp, "172.30.0.3:80"),
        port("192.0.2.1:8082", Transport::Tcp, "172.30.1.2:80"),
    ];
    s.host.load(&table("creel", &segments(), &published));
    let host = &s.host.namespace;

    // The same network, directly.
    assert_eq!(tcp(&s.a1, "172.30.0.3:80"), "a2 172.30.0.2");
    assert_eq!(udp(&s.a1, "[fd00:a::3]:80"), "a2 fd00:a::2");
    // This host reaches containers at their addresses; they reach this host.
    assert_eq!(tcp(host, "172.30.0.2:80"), "a1 172.30.0.1");
    assert_eq!(tcp(host, "172.30.2.2:80"), "inner 172.30.2.1");
    // Other networks do not, neither of them, in either family.
    for (from, to) in [(&s.a1, "172.30.1.2:80"), (&s.b1, "172.30.0.2:80"), (&s.a1, "172.30.2.2:80")] {
        assert_eq!(tcp(from, to), "TimedOut", "{to}");
    }
    assert_eq!(tcp(&s.a1, "[fd00:b::2]:80"), "TimedOut");
    assert_eq!(udp(&s.b1, "172.30.0.2:80"), "WouldBlock");
    // Nor does the neighbour, who knows the way.
    assert_eq!(tcp(&s.neighbour, "172.30.0.2:80"), "TimedOut");
    assert_eq!(tcp(&s.neighbour, "[fd00:a::2]:80"), "TimedOut");
    // Containers reach the outside under this host's address; those of an internal network do not.
    assert_eq!(tcp(&s.a1, "192.0.2.2:80"), "neighbour 192.0.2.1");
    assert_eq!(tcp(&s.a1, "[2001:db8::2]:80"), "neighbour 2001:db8::1");
    assert_eq!(tcp(&s.inner, "192.0.2.2:80"), "TimedOut");
    assert_eq!(tcp(&s.inner, "172.30.0.2:80"), "TimedOut");

    // Published ports: from outside, under the client's own address.
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8080"), "a1 192.0.2.2");
    assert_eq!(udp(&s.neighbour, "192.0.2.1:8080"), "a1 192.0.2.2");
    assert_eq!(tcp(&s.neighbour, "[2001:db8::1]:8080"), "a1 2001:db8::2");
    // From this host, by every address that it has.
    assert_eq!(tcp(host, "127.0.0.1:8080"), "a1 172.30.0.1");
    assert_eq!(tcp(host, "192.0.2.1:8080"), "a1 192.0.2.1");
    assert_eq!(tcp(host, "[2001:db8::1]:8080"), "a1 2001:db8::1");
    // From another network, from the same one, and from the container itself: all leave their network on the way.
    assert_eq!(tcp(&s.b1, "172.30.1.1:8080"), "a1 172.30.0.1");
    assert_eq!(tcp(&s.a2, "172.30.0.1:8080"), "a1 172.30.0.1");
    assert_eq!(tcp(&s.a1, "172.30.0.1:8080"), "a1 172.30.0.1");
    assert_eq!(tcp(&s.a1, "[fd00:a::1]:8080"), "a1 fd00:a::1");

    // Published at 127.0.0.1: to this host alone.
    assert_eq!(tcp(host, "127.0.0.1:8081"), "a2 172.30.0.1");
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8081"), "ConnectionRefused");
    // The neighbour sends it to a loopback address by way of us: the attack on what other engines did. It has given
    // its own away for that, and this host takes such packets from the wire.
    s.neighbour
        .enter(|| {
            sysctl("ipv4/conf/all/route_localnet", "1");
            Ok(())
        })
        .unwrap();
    let mut links = s.neighbour.links().unwrap();
    links.remove_address(1, net("127.0.0.1/8")).unwrap();
    let (gateway, link) = ("192.0.2.1".parse().unwrap(), links.get("eth0").unwrap().index);
    let way = Route { to: net("127.0.0.0/8"), gateway: Some(gateway), link: Some(link), metric: None };
    links.add_route(&way).unwrap();
    assert_eq!(tcp(&s.neighbour, "127.0.0.1:8081"), "ConnectionRefused", "it arrives, and nobody takes it");
    // Published at one address.
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8082"), "b1 192.0.2.2");
    assert_eq!(tcp(host, "127.0.0.1:8082"), "ConnectionRefused");
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8083"), "ConnectionRefused");
}

#[test]
fn ports_come_and_go_and_the_table_is_replaced_whole() {
    if !can_run() {
        return;
    }
    let s = scene();
    s.host.load(&table("creel", &segments(), &[]));
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8080"), "ConnectionRefused");
    let one = port("0.0.0.0:8080", Transport::Tcp, "172.30.0.2:80");
    let other = port("0.0.0.0:8080", Transport::Tcp, "172.30.0.3:80");
    let enter = |change: &(dyn Fn() -> creel_net::Result<()> + Sync)| s.host.namespace.enter(change);
    let (map, element) = one.element();
    enter(&|| nft::add("creel", &map, &[one.element().1])).unwrap();
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8080"), "a1 192.0.2.2");
    // The same again is no error; another target for it is, and nothing of the step is done.
    enter(&|| nft::add("creel", &map, &[one.element().1])).unwrap();
    let second = port("0.0.0.0:8090", Transport::Tcp, "172.30.0.2:80");
    let error = enter(&|| nft::add("creel", &map, &[second.element().1, other.element().1])).unwrap_err();
    assert_eq!(error.errno(), Some(rustix::io::Errno::EXIST), "{error}");
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8090"), "ConnectionRefused");
    enter(&|| nft::take_out("creel", &map, std::slice::from_ref(&element))).unwrap();
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:8080"), "ConnectionRefused");
    let error = enter(&|| nft::take_out("creel", &map, std::slice::from_ref(&element))).unwrap_err();
    assert_eq!(error.errno(), Some(rustix::io::Errno::NOENT), "{error}");
    // Replaced while somebody has a connection: it goes on.
    s.host.load(&table("creel", &segments(), &[one]));
    let mut stream = s
        .neighbour
        .enter(|| {
            let to: SocketAddr = "192.0.2.1:8080".parse().unwrap();
            Ok(TcpStream::connect_timeout(&to, PATIENCE).unwrap())
        })
        .unwrap();
    s.host.load(&table("creel", &segments(), &[one]));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "a1 192.0.2.2");
    enter(&|| nft::remove("creel")).unwrap();
    enter(&|| nft::remove("creel")).unwrap();
    assert_eq!(tcp(&s.a1, "172.30.1.2:80"), "b1 172.30.0.2", "without the table nothing is kept apart");
}

#[test]
fn many_ports_in_one_step() {
    if !can_run() {
        return;
    }
    let s = scene();
    let published: Vec<Published> = (10_000..20_000)
        .map(|number| port(&format!("0.0.0.0:{number}"), Transport::Tcp, "172.30.0.2:80"))
        .collect();
    s.host.load(&table("creel", &segments(), &published));
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:10000"), "a1 192.0.2.2");
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:19999"), "a1 192.0.2.2");
    assert_eq!(tcp(&s.neighbour, "192.0.2.1:20000"), "ConnectionRefused");
}

#[test]
fn ports_of_a_bridge_that_are_kept_apart() {
    if !can_run() {
        return;
    }
    let mut host = Host::new();
    let bridge = host.bridge("apart", &["172.30.0.1/24"]);
    let one = host.container(bridge, "iso1", &["172.30.0.2/24"], &["172.30.0.1"]);
    let two = host.container(bridge, "iso2", &["172.30.0.3/24"], &["172.30.0.1"]);
    serve(&one, 80, "one");
    let apart = Segment { icc: false, ..segment("apart", &["172.30.0.0/24"]) };
    host.load(&table("creel", &[apart], &[]));
    assert_eq!(tcp(&host.namespace, "172.30.0.2:80"), "one 172.30.0.1");
    assert_eq!(tcp(&two, "172.30.0.2:80"), "TimedOut");
    // By way of this host: whoever routes it there.
    let mut links = two.links().unwrap();
    let eth0 = links.get("eth0").unwrap().index;
    let way = Route {
        to: net("172.30.0.2/32"),
        gateway: Some("172.30.0.1".parse().unwrap()),
        link: Some(eth0),
        metric: None,
    };
    links.add_route(&way).unwrap();
    assert_eq!(tcp(&two, "172.30.0.2:80"), "TimedOut");
}

#[test]
fn interfaces() {
    if !can_run() {
        return;
    }
    let mut host = Host::new();
    let index = host.bridge("br", &["10.0.0.1/24", "fd00::1/64"]);
    let error = host.links.add_bridge(&Bridge { name: "br", mtu: None, mac: [2; 6] }).unwrap_err();
    assert_eq!(error.to_string(), "cannot make the bridge br: File exists");
    let addresses = host.links.addresses().unwrap();
    assert!(
        addresses.contains(&(index, net("10.0.0.1/24"))) && addresses.contains(&(index, net("fd00::1/64")))
    );
    host.links.add_address(index, net("10.0.0.1/24")).unwrap();
    host.links.remove_address(index, net("10.0.0.1/24")).unwrap();
    host.links.remove_address(index, net("10.0.0.1/24")).unwrap();
    assert!(!host.links.addresses().unwrap().contains(&(index, net("10.0.0.1/24"))));
    // The pair goes with its namespace.
    let inside = host.container(index, "v0", &[], &[]);
    assert_eq!(host.links.get("v0").unwrap().master, Some(index));
    drop(inside);
    let begun = std::time::Instant::now();
    while host.links.find("v0").unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the pair stays");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Nothing is left of a pair that could not be made.
    let gone = Namespace::create().unwrap();
    let pair = Pair {
        name: "v1",
        bridge: 9999,
        is_isolated: false,
        is_hairpin: false,
        namespace: &gone,
        inside: "eth0",
        mac: [2; 6],
        mtu: None,
    };
    assert!(host.links.add_pair(&pair).is_err());
    assert_eq!(host.links.find("v1").unwrap(), None);
    host.links.remove("br").unwrap();
    host.links.remove("br").unwrap();
    assert!(matches!(host.links.get("br"), Err(creel_net::Error::NoLink(name)) if name == "br"));
    assert!(host.namespace.as_fd().as_raw_fd() > 2);
}

/// What nft(8) shows of the table is what the table says of itself.
#[test]
fn nft_reads_it_alike() {
    if !can_run() {
        return;
    }
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        assert!(std::env::var_os("CREEL_TEST_TOOLS").is_none(), "nft is not installed: run dev/setup");
        eprintln!("skipped: needs nft");
        return;
    }
    let s = scene();
    let published = [
        port("0.0.0.0:8080", Transport::Tcp, "172.30.0.2:80"),
        port("[::1]:8080", Transport::Udp, "[fd00:a::2]:80"),
        port("192.0.2.1:8082", Transport::Sctp, "172.30.1.2:80"),
    ];
    let table = table("creel", &segments(), &published);
    s.host.load(&table);
    let shown = s
        .host
        .namespace
        .enter(|| {
            Ok(std::process::Command::new("nft").args(["list", "table", "inet", "creel"]).output().unwrap())
        })
        .unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let plain = |text: &str| {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            // nft breaks long lists of elements.
            match lines.last_mut() {
                Some(last) if last.ends_with(',') => *last = format!("{last} {line}"),
                _ => lines.push(line.to_owned()),
            }
        }
        lines
    };
    let (theirs, mut ours) = (plain(&String::from_utf8_lossy(&shown.stdout)), plain(&table.to_string()));
    // It shows chains before sets or after, and a whole net by its prefix: compared line by line, in any order.
    let mut theirs: Vec<String> = theirs
        .into_iter()
        .map(|line| {
            let whole = |line: String, n: &str| {
                line.replace(&format!("fd00:{n}::/64"), &format!("fd00:{n}::-fd00:{n}::ffff:ffff:ffff:ffff"))
            };
            let line = whole(whole(line, "a"), "b");
            line.replace("172.30.0.0/24", "172.30.0.0-172.30.0.255")
                .replace("172.30.1.0/24", "172.30.1.0-172.30.1.255")
        })
        .collect();
    theirs.sort();
    ours.sort();
    assert_eq!(theirs, ours);
}

#[test]
fn a_resolver_beside_a_program_that_has_its_port() {
    if !can_run() {
        return;
    }
    const RESOLVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);
    let inside = Namespace::create().unwrap();
    let (own_udp, own_tcp) = inside
        .enter(|| {
            let sockets = dns::open_at((RESOLVER, 0).into())?;
            let at = SocketAddr::try_from(rustix::net::getsockname(&sockets.0).unwrap()).unwrap();
            nft::apply(&creel_net::resolver_table("creel", RESOLVER, at.port()))?;
            Ok(sockets)
        })
        .unwrap();
    serve(&inside, 53, "a server of its own");
    let mut zone = dns::Zone::new("net");
    zone.add(&["10.0.0.2".parse().unwrap()], ["web"]);
    let mut resolver = dns::Resolver::new(own_udp, own_tcp).unwrap();
    resolver.set_zones(vec![zone]);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            resolver.serve().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01";
    let (by_udp, by_tcp) = inside
        .enter(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.connect((RESOLVER, 53)).unwrap();
            socket.send(question).unwrap();
            let mut buffer = [0; 512];
            let n = socket.recv(&mut buffer).unwrap();
            let mut stream = TcpStream::connect((RESOLVER, 53)).unwrap();
            stream.write_all(&[&[0, question.len() as u8], &question[..]].concat()).unwrap();
            let mut answer = vec![0; n + 2];
            stream.read_exact(&mut answer).unwrap();
            Ok((buffer[..n].to_vec(), answer[2..].to_vec()))
        })
        .unwrap();
    assert_eq!(by_udp, by_tcp);
    assert_eq!(by_udp[by_udp.len() - 4..], [10, 0, 0, 2]);
    assert_eq!(udp(&inside, "127.0.0.1:53"), "a server of its own 127.0.0.1");
    drop(end);
    thread.join().unwrap();
}
