//! Lists, errors and help as they are printed.

// What goes wrong in here is the test's own failure.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use expect_test::{Expect, expect};
use support::{Daemon, Ran, Reply, ok, run, status};

fn check(ran: &Ran, expect: Expect) {
    let text = format!("{}{}=> {}\n", ran.out, ran.err, ran.code);
    expect.assert_eq(&text);
}

fn ago(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - seconds
}

#[test]
fn help() {
    check(
        &run(&["--help"]),
        expect![[r#"
            Usage:  creel [OPTIONS] COMMAND

            Runs programs in containers: small, fast, and you can see what a container is.

            First steps:
              creel run hello              What a container is, told from inside one
              creel run -it IMAGE sh       A shell in a new container

            Common Commands:
              run         Create and run a new container from an image
              exec        Execute a command in a running container
              ps          List containers
              pull        Download an image from a registry
              push        Upload an image to a registry
              images      List images
              logs        Fetch the logs of a container
              stop        Stop one or more running containers
              version     Show the version of the client and the daemon
              info        Display system-wide information

            Management Commands:
              container   Manage containers
              image       Manage images
              system      Manage creel
              volume      Manage volumes

            Commands:
              attach      Attach local standard input, output, and error streams to a running container
              commit      Create a new image from a container's changes
              cp          Copy files/folders between a container and the local filesystem
              create      Create a new container
              daemon      Run the daemon (started by itself when root needs it)
              diff        Inspect changes to files or directories on a container's filesystem
              events      Get real time events from the server
              export      Export a container's filesystem as a tar archive
              history     Show the history of an image
              import      Import the contents from a tarball to create a filesystem image
              inspect     Return low-level information on containers, images and volumes
              kill        Kill one or more running containers
              load        Load an image from a tar archive or STDIN
              login       Authenticate to a registry
              logout      Log out from a registry
              pause       Pause all processes within one or more containers
              port        List port mappings or a specific mapping for the container
              rename      Rename a container
              restart     Restart one or more containers
              rm          Remove one or more containers
              rmi         Remove one or more images
              save        Save one or more images to a tar archive (streamed to STDOUT by default)
              start       Start one or more stopped containers
              stats       Display a live stream of container(s) resource usage statistics
              tag         Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
              top         Display the running processes of a container
              unpause     Unpause all processes within one or more containers
              wait        Block until one or more containers stop, then print their exit codes

            Global Options:
                  --config string   Directory of the registries' credentials (default
                                    "~/.docker")
              -H, --host list       Socket of the daemon (unix:///PATH); also in CREEL_HOST
              -v, --version         Print the version and quit

            Run 'creel COMMAND --help' for more information on a command.
            => 0
        "#]],
    );
    check(
        &run(&["image"]),
        expect![[r#"
            Usage:  creel image COMMAND

            Manage images

            Commands:
              history     Show the history of an image
              import      Import the contents from a tarball to create a filesystem image
              inspect     Display detailed information on one or more images
              load        Load an image from a tar archive or STDIN
              ls          List images
              prune       Remove unused images
              pull        Download an image from a registry
              push        Upload an image to a registry
              rm          Remove one or more images
              save        Save one or more images to a tar archive (streamed to STDOUT by default)
              tag         Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
              verify      Read images again and put aside what is damaged

            Run 'creel image COMMAND --help' for more information on a command.
            => 0
        "#]],
    );
    check(
        &run(&["ps", "--help"]),
        expect![[r#"
        Usage:  creel ps [OPTIONS]

        List containers

        Aliases:
          creel ps, creel container ls, creel container list, creel container ps

        Options:
          -a, --all             Show those that do not run too
          -f, --filter filter   Only those that match
              --format string   'table', 'table TEMPLATE', 'json' or a Go template
          -n, --last int        Show the n last created ones, whatever their state
          -l, --latest          Show the last created one, whatever its state
              --no-trunc        Don't truncate output
          -q, --quiet           Only display IDs
          -s, --size            Display sizes
        => 0
    "#]],
    );
    check(
        &run(&["cp", "--help"]),
        expect![[r#"
        Usage:  creel cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-
        	creel cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH

        Copy files/folders between a container and the local filesystem

        With '-' as the source a tar archive is read from STDIN and unpacked in a
        directory of the container. With '-' as the destination the container's files
        are written to STDOUT as a tar archive.

        Aliases:
          creel cp, creel container cp

        Options:
          -a, --archive       Keep the ids of users and groups
          -L, --follow-link   Follow a symbolic link in SRC_PATH
          -q, --quiet         Do not tell what was copied
        => 0
    "#]],
    );
    check(
        &run(&["run", "--help"]),
        expect![[r#"
        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Create and run a new container from an image

        Aliases:
          creel run, creel container run

        Options:
              --add-host list                    Add a line to /etc/hosts (host:ip)
              --annotation map                   Add an annotation for the OCI runtime
          -a, --attach list                      Attach to STDIN, STDOUT or STDERR
              --blkio-weight uint16              Block I/O weight, 10 to 1000; 0 for
                                                 none
              --cap-add list                     Add Linux capabilities
              --cap-drop list                    Drop Linux capabilities
              --cgroup-parent string             Cgroup under which the container's is
                                                 made
              --cgroupns string                  Cgroup namespace: host or private
              --cidfile string                   Write the container's ID to this file
              --cpu-period int                   CPU period in microseconds
              --cpu-quota int                    CPU quota in microseconds a period
              --cpu-rt-period int                Real-time CPU period in microseconds
              --cpu-rt-runtime int               Real-time CPU runtime in microseconds
          -c, --cpu-shares int                   CPU shares (relative weight)
              --cpus decimal                     Number of CPUs
              --cpuset-cpus string               CPUs to run on (0-3, 0,1)
              --cpuset-mems string               Memory nodes to use (0-3, 0,1)
          -d, --detach                           Run in the background and print the
                                                 container's ID
              --detach-keys string               Keys that detach (default
                                                 "ctrl-p,ctrl-q")
              --device list                      Give a device of the host to the
                                                 container
              --device-cgroup-rule list          Add a rule to the list of allowed
                                                 devices
              --device-read-bps list             Limit reading from a device, bytes a
                                                 second
              --device-read-iops list            Limit reading from a device, operations
                                                 a second
              --device-write-bps list            Limit writing to a device, bytes a
                                                 second
              --device-write-iops list           Limit writing to a device, operations a
                                                 second
              --dns list                         Use these DNS servers
              --dns-option list                  Set DNS options
              --dns-search list                  Search these DNS domains
              --domainname string                NIS domain name inside the container
              --entrypoint string                Run this instead of the image's
                                                 entrypoint
          -e, --env list                         Set environment variables
              --env-file list                    Read environment variables from a file
              --expose list                      Say that a port is listened on
              --group-add list                   Add supplementary groups
              --health-cmd string                Command that checks the container's
                                                 health
              --health-interval duration         Time between checks (ms|s|m|h)
              --health-retries int               Failed checks until it is unhealthy
              --health-start-interval duration   Time between checks while it starts
              --health-start-period duration     Time to start in which failures do not
                                                 count
              --health-timeout duration          Longest time for one check
          -h, --hostname string                  Host name inside the container
              --init                             Run a small init as process 1, which
                                                 forwards signals and reaps
          -i, --interactive                      Keep STDIN open even if not attached
              --ip string                        IPv4 address (e.g., 172.30.100.104)
              --ip6 string                       IPv6 address (e.g., 2001:db8::33)
              --ipc string                       IPC namespace: private, shareable,
                                                 host, none or container:ID
          -l, --label list                       Set a label
              --label-file list                  Read labels from a file
              --link list                        Add a link to another container
              --log-driver string                Log driver
              --log-opt list                     Set an option of the log driver
              --mac-address string               MAC address (e.g., 92:d0:c6:0a:29:33)
          -m, --memory bytes                     Memory limit
              --memory-reservation bytes         Soft memory limit
              --memory-swap bytes                Limit of memory and swap together; -1
                                                 for no limit of swap
              --memory-swappiness int            How readily memory is swapped out (0 to
                                                 100)
              --mount mount                      Attach a file system
                                                 (type=bind|volume|tmpfs|image,src=…,dst=…)
              --name string                      Give the container a name
              --network network                  Connect to a network: none, host, …
              --network-alias list               Add an alias in the network
              --no-healthcheck                   Do without the image's health check
              --oom-kill-disable                 Do not kill for lack of memory
              --oom-score-adj int                Adjust the OOM killer's preference
                                                 (-1000 to 1000)
              --pid string                       PID namespace: host or container:ID
              --pids-limit int                   Limit of tasks; -1 for none
              --platform string                  Platform of the image
                                                 (os/arch[/variant])
              --privileged                       Give the container all privileges
          -p, --publish list                     Publish a container's port on the host
          -P, --publish-all                      Publish all exposed ports
              --pull string                      Pull the image first: "always",
                                                 "missing" or "never" (default
                                                 "missing")
          -q, --quiet                            Do not show a pull's progress
              --read-only                        Mount the container's root read-only
              --restart string                   When to start it again after it ended
                                                 (default "no")
              --rm                               Remove the container when it ends
              --runtime string                   OCI runtime to use
              --security-opt list                Security options (seccomp=FILE,
                                                 no-new-privileges, …)
              --shm-size bytes                   Size of /dev/shm
              --sig-proxy                        Pass signals on to the program (default
                                                 true)
              --stop-signal string               Signal that stops the program
              --stop-timeout int                 Seconds between that signal and SIGKILL
              --storage-opt list                 Set an option of the storage driver
              --sysctl map                       Set a kernel parameter
              --timings                          Print to STDERR where the time went,
                                                 step by step
              --tmpfs list                       Mount a tmpfs (path[:options])
          -t, --tty                              Give the program a pseudo-terminal
              --ulimit ulimit                    Set a resource limit (name=soft[:hard])
          -u, --user string                      User and group
                                                 (<name|uid>[:<group|gid>])
              --userns string                    User namespace
              --uts string                       UTS namespace: host or a new one
          -v, --volume list                      Bind mount a path or a volume
                                                 (src:dst[:options])
              --volume-driver string             Volume driver
              --volumes-from list                Mount the volumes of other containers
          -w, --workdir string                   Working directory inside the container
        => 0
    "#]],
    );
}

#[test]
fn wrong_lines() {
    let mut text = String::new();
    for line in [
        "nosuch",
        "runn",
        "container lss",
        "rm",
        "ps a",
        "run",
        "run --memmory 5m x",
        "run -Q x",
        "run --name",
        "run --rm=maybe x",
        "run -m 5q x",
        "run --mount type=bind x",
        "run --ulimit nofile x",
        "ps --filter x",
        "inspect --format {{ x",
        "cp a b",
        "cp a:/x b:/y",
        "-H tcp://127.0.0.1:2375 ps",
        "-H tcp://127.0.0.1:2375 run x",
        "-H unix:///nonexistent/x.sock ps",
        "-H unix:///nonexistent/x.sock run x",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = run(&words);
        text.push_str(&format!("$ creel {line}\n{}{}=> {}\n\n", ran.out, ran.err, ran.code));
    }
    expect![[r#"
        $ creel nosuch
        creel: unknown command: creel nosuch

        Run 'creel --help' for more information
        => 1

        $ creel runn
        creel: unknown command: creel runn

        Did you mean 'run'?

        Run 'creel --help' for more information
        => 1

        $ creel container lss
        creel: unknown command: creel container lss

        Did you mean 'ls'?

        Usage:  creel container

        Run 'creel container --help' for more information
        => 1

        $ creel rm
        creel: 'creel rm' requires at least 1 argument

        Usage:  creel rm [OPTIONS] CONTAINER [CONTAINER...]

        See 'creel rm --help' for more information
        => 1

        $ creel ps a
        creel: 'creel ps' accepts no arguments

        Usage:  creel ps [OPTIONS]

        Run 'creel ps --help' for more information
        => 1

        $ creel run
        creel: 'creel run' requires at least 1 argument

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        See 'creel run --help' for more information
        => 1

        $ creel run --memmory 5m x
        unknown flag: --memmory
        Did you mean --memory?

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Run 'creel run --help' for more information
        => 125

        $ creel run -Q x
        unknown shorthand flag: 'Q' in -Q

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Run 'creel run --help' for more information
        => 125

        $ creel run --name
        flag needs an argument: --name

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Run 'creel run --help' for more information
        => 125

        $ creel run --rm=maybe x
        invalid argument "maybe" for "--rm" flag: strconv.ParseBool: parsing "maybe": invalid syntax

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Run 'creel run --help' for more information
        => 125

        $ creel run -m 5q x
        invalid argument "5q" for "-m, --memory" flag: invalid size: '5q'

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Run 'creel run --help' for more information
        => 125

        $ creel run --mount type=bind x
        invalid argument "type=bind" for "--mount" flag: target is required

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Run 'creel run --help' for more information
        => 125

        $ creel run --ulimit nofile x
        invalid argument "nofile" for "--ulimit" flag: invalid ulimit argument: nofile

        Usage:  creel run [OPTIONS] IMAGE [COMMAND] [ARG...]

        Run 'creel run --help' for more information
        => 125

        $ creel ps --filter x
        invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)

        Usage:  creel ps [OPTIONS]

        Run 'creel ps --help' for more information
        => 125

        $ creel inspect --format {{ x
        template parsing error: template: :1: unclosed action
        => 64

        $ creel cp a b
        must specify at least one container source
        => 1

        $ creel cp a:/x b:/y
        copying between containers is not supported
        => 1

        $ creel -H tcp://127.0.0.1:2375 ps
        invalid host `tcp://127.0.0.1:2375`: creel listens on unix sockets only, because whoever reaches the API is root on this machine; forward the socket through ssh -L instead
        => 1

        $ creel -H tcp://127.0.0.1:2375 run x
        creel: invalid host `tcp://127.0.0.1:2375`: creel listens on unix sockets only, because whoever reaches the API is root on this machine; forward the socket through ssh -L instead

        Run 'creel run --help' for more information
        => 125

        $ creel -H unix:///nonexistent/x.sock ps
        Cannot connect to the creel daemon at unix:///nonexistent/x.sock. Is the creel daemon running? (no such file or directory)
        => 1

        $ creel -H unix:///nonexistent/x.sock run x
        creel: Cannot connect to the creel daemon at unix:///nonexistent/x.sock. Is the creel daemon running? (no such file or directory)

        Run 'creel run --help' for more information
        => 125

    "#]].assert_eq(&text);
}

fn listing() -> Daemon {
    Daemon::start(|request| {
        match request.target.split('?').next().unwrap() {
        "/containers/json" => ok(serde_json::json!([{
            "Id": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "Names": ["/web"], "Image": "busybox", "ImageID": "sha256:1", "Command": "sleep 1000000000000000000",
            "Created": ago(300), "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
            "Labels": {"com.x.tier": "front", "b": "c"}, "State": "running", "Status": "Up 5 minutes",
            "SizeRw": 12, "SizeRootFs": 2_061_000, "NetworkSettings": {"Networks": {"none": {}}},
            "Mounts": [{"Type": "bind", "Source": "/a/very/long/path/of/a/directory", "Destination": "/x"}],
        }])
        .to_string()),
        "/images/json" => ok(serde_json::json!([
            {"Id": "sha256:aaaaaaaaaaaaaaaaaaaa", "RepoTags": ["busybox:1", "busybox:2", "x/y:z"],
             "RepoDigests": ["busybox@sha256:dddd"], "Created": ago(90000), "Size": 2_061_000,
             "SharedSize": -1, "Containers": -1},
            {"Id": "sha256:bbbbbbbbbbbbbbbbbbbb", "RepoTags": null, "RepoDigests": null, "Created": ago(100),
             "Size": 117_000_000, "SharedSize": -1, "Containers": -1},
        ])
        .to_string()),
        "/images/x/history" => ok(serde_json::json!([
            {"Id": "sha256:aaaaaaaaaaaaaaaaaaaa", "Created": ago(90000), "CreatedBy": "CMD [\"sh\"]", "Size": 0, "Comment": "c"},
            {"Id": "<missing>", "Created": ago(90000), "Size": 4_500_000, "Comment": "",
             "CreatedBy": "ADD a-file-with-a-long-name.tar.xz in / and more of it"},
        ])
        .to_string()),
        "/containers/web/json" => ok(r#"{"Id":"0123","Name":"/web","State":{"Status":"running","Pid":7},"Mounts":[]}"#),
        "/containers/web/top" => {
            ok(r#"{"Titles":["PID","CMD"],"Processes":[["1","sleep 1000"],["22","sh"]]}"#)
        }
        "/containers/web/changes" => ok(r#"[{"Kind":0,"Path":"/etc"},{"Kind":1,"Path":"/etc/new"},{"Kind":2,"Path":"/x"}]"#),
        "/containers/web/logs" => {
            let mut body = support::frame(1, "one\n");
            body.extend(support::frame(2, "two\n"));
            Reply::Full(200, "Content-Type: application/vnd.docker.multiplexed-stream\r\n", body)
        }
        "/containers/web/stop" | "/containers/web" => Reply::Full(204, "", Vec::new()),
        "/events" => ok(
            "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"c1\",\"Attributes\":{\"name\":\"web\",\
             \"image\":\"x\"}},\"time\":1700000000,\"timeNano\":1700000000123456789}\n",
        ),
        "/version" => ok(r#"{"Platform":{"Name":""},"Components":[{"Name":"Engine","Version":"0.1.0","Details":{"ApiVersion":"1.51","MinAPIVersion":"1.24","Os":"linux","Arch":"amd64"}}],"Version":"0.1.0"}"#),
        path => status(404, &format!("No such container: {}", path.split('/').nth(2).unwrap_or_default())),
    }
    })
}

#[test]
fn containers() {
    let daemon = listing();
    check(
        &daemon.run(&["ps"]),
        expect![[r#"
        CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                  NAMES
        0123456789ab   busybox   "sleep 1000000000000…"   5 minutes ago   Up 5 minutes   0.0.0.0:8080->80/tcp   web
        => 0
    "#]],
    );
    check(
        &daemon.run(&["ps", "-s", "--no-trunc"]),
        expect![[r#"
        CONTAINER ID                                                       IMAGE     COMMAND                       CREATED         STATUS         PORTS                  NAMES     SIZE
        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef   busybox   "sleep 1000000000000000000"   5 minutes ago   Up 5 minutes   0.0.0.0:8080->80/tcp   web       12B (virtual 2.06MB)
        => 0
    "#]],
    );
    check(
        &daemon.run(&["ps", "-q"]),
        expect![[r#"
        0123456789ab
        => 0
    "#]],
    );
    check(
        &daemon.run(&["ps", "--format", "table {{.Names}}\\t{{.Label \"com.x.tier\"}}\\t{{.Mounts}}"]),
        expect![[r#"
            NAMES     tier      MOUNTS
            web       front     /a/very/long/p…
            => 0
        "#]],
    );
    check(
        &daemon.run(&["ps", "--format", "{{.Names}}: {{.Foo}}"]),
        expect![[r#"
        failed to execute template: template: :1:14: executing "" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext
        => 1
    "#]],
    );
    let last = daemon.run(&["ps", "-n", "3", "--filter", "label=b=c", "--filter", "name=w"]);
    assert_eq!(last.code, 0);
    assert_eq!(
        daemon.lines().last().unwrap(),
        "GET /containers/json?limit=3&filters=%7B%22label%22%3A%7B%22b%3Dc%22%3Atrue%7D%2C%22name%22%3A%7B%22w%22%3Atrue%7D%7D"
    );
}

#[test]
fn images() {
    let daemon = listing();
    check(
        &daemon.run(&["images"]),
        expect![[r#"
        REPOSITORY   TAG       IMAGE ID       CREATED              SIZE
        busybox      1         aaaaaaaaaaaa   25 hours ago         2.06MB
        busybox      2         aaaaaaaaaaaa   25 hours ago         2.06MB
        x/y          z         aaaaaaaaaaaa   25 hours ago         2.06MB
        <none>       <none>    bbbbbbbbbbbb   About a minute ago   117MB
        => 0
    "#]],
    );
    check(
        &daemon.run(&["images", "--digests"]),
        expect![[r#"
        REPOSITORY   TAG       DIGEST        IMAGE ID       CREATED              SIZE
        busybox      1         sha256:dddd   aaaaaaaaaaaa   25 hours ago         2.06MB
        busybox      2         sha256:dddd   aaaaaaaaaaaa   25 hours ago         2.06MB
        x/y          z         <none>        aaaaaaaaaaaa   25 hours ago         2.06MB
        <none>       <none>    <none>        bbbbbbbbbbbb   About a minute ago   117MB
        => 0
    "#]],
    );
    check(
        &daemon.run(&["history", "x"]),
        expect![[r#"
        IMAGE          CREATED        CREATED BY                                      SIZE      COMMENT
        aaaaaaaaaaaa   25 hours ago   CMD ["sh"]                                      0B        c
        <missing>      25 hours ago   ADD a-file-with-a-long-name.tar.xz in / and …   4.5MB     
        => 0
    "#]],
    );
    check(
        &daemon.run(&["history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "x"]),
        expect![[r#"
            CMD ["sh"] 0B
            ADD a-file-with-a-long-name.tar.xz in / and more of it 4.5MB
            => 0
        "#]],
    );
}

#[test]
fn one_container() {
    let daemon = listing();
    check(
        &daemon.run(&["inspect", "web", "gone"]),
        expect![[r#"
        [
            {
                "Id": "0123",
                "Name": "/web",
                "State": {
                    "Status": "running",
                    "Pid": 7
                },
                "Mounts": []
            }
        ]
        Error: No such object: gone
        => 1
    "#]],
    );
    check(
        &daemon.run(&["inspect", "gone"]),
        expect![[r#"
        []
        Error: No such object: gone
        => 1
    "#]],
    );
    check(
        &daemon.run(&["inspect", "-f", "{{.State.Pid}} {{json .State}} {{.Name | upper}}", "web"]),
        expect![[r#"
            7 {"Status":"running","Pid":7} /WEB
            => 0
        "#]],
    );
    check(
        &daemon.run(&["top", "web"]),
        expect![[r#"
        PID                 CMD
        1                   sleep 1000
        22                  sh
        => 0
    "#]],
    );
    check(
        &daemon.run(&["diff", "web"]),
        expect![[r#"
        C /etc
        A /etc/new
        D /x
        => 0
    "#]],
    );
    let logs = daemon.run(&["logs", "--tail", "5", "web"]);
    assert_eq!(logs, Ran { code: 0, out: "one\n".into(), err: "two\n".into() });
    check(
        &daemon.run(&["stop", "-t", "3", "web", "gone", "web"]),
        expect![[r#"
        web
        web
        Error response from daemon: No such container: gone
        => 1
    "#]],
    );
    check(
        &daemon.run(&["rm", "-f", "web", "gone"]),
        expect![[r#"
        web
        Error response from daemon: No such container: gone
        => 0
    "#]],
    );
    check(
        &daemon.run(&["rm", "gone"]),
        expect![[r#"
        Error response from daemon: No such container: gone
        => 1
    "#]],
    );
    check(
        &daemon.run(&["events", "--since", "1700000000", "--until", "1700000001"]),
        expect![[r#"
        2023-11-14T22:13:20.123456789Z container start c1 (image=x, name=web)
        => 0
    "#]],
    );
    check(
        &daemon.run(&["version"]),
        expect![[r#"
        Client:
         Version:           0.1.0
         API version:       1.51
         OS/Arch:           linux/amd64

        Server:
         Engine:
          Version:           0.1.0
          API version:       1.51 (minimum version 1.24)
          OS/Arch:           linux/amd64
        => 0
    "#]],
    );
}

#[test]
fn a_tree_goes_into_a_container() {
    let daemon = Daemon::start(|request| match (request.method.as_str(), request.target.as_str()) {
        ("HEAD", _) => status(404, ""),
        ("PUT", _) => Reply::Full(200, "", Vec::new()),
        other => panic!("unexpected {other:?}"),
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/f"), "hello").unwrap();
    let source = dir.path().join("d");
    let ran = daemon.run(&["cp", source.to_str().unwrap(), "web:/opt/new"]);
    assert_eq!(ran, Ran { code: 0, out: String::new(), err: String::new() });
    let put = daemon.requests().pop().unwrap();
    assert_eq!(put.target, "/containers/web/archive?path=%2Fopt&noOverwriteDirNonDir=true");
    let mut reader = creel_layer::tar::Reader::new(&put.body[..]);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.name).unwrap());
    }
    assert_eq!(names, ["new/", "new/f"]);
}

#[test]
fn a_reader_that_goes_is_no_crash() {
    let daemon = Daemon::start(|_| {
        let body = support::frame(1, &"x".repeat(1 << 20));
        Reply::Full(200, "Content-Type: application/vnd.docker.multiplexed-stream\r\n", body)
    });
    let mut child = daemon.spawn(&["logs", "web"]);
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran, Ran { code: 141, out: String::new(), err: String::new() });
}
