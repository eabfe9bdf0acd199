//! Writes small well-formed inputs into `corpus/`, from which the fuzzer gets far sooner than from nothing.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use creel_layer::tar::{Entry, Kind, Segment, Timestamp, Writer};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn main() -> io::Result<()> {
    let hex = &DIGEST[7..];
    seed(
        "reference",
        &[
            b"busybox",
            b"docker.io/library/busybox:1.36",
            b"localhost:5000/a/b__c-d.e:tag",
            b"[::1]:5000/x",
            b"docker.io/localhost/x",
            format!("quay.io/a/b:c@{DIGEST}").as_bytes(),
            format!("docker.io/library/{hex}").as_bytes(),
            format!("index.docker.io/{}", "a".repeat(230)).as_bytes(),
        ],
    )?;
    seed(
        "credentials",
        &[
            br#"{"auths":{"quay.io":{"auth":"dTpwOnc="},"https://index.docker.io/v1/":{"identitytoken":"t"}},"credsStore":"x"}"#.as_slice(),
            b"{\"credHelpers\":{\"a.example\":\"ecr\",\"docker.io\":\"\"},\"detachKeys\":\"ctrl-q\"}\nhttps://a.example/v2/",
        ],
    )?;
    seed("digest", &[DIGEST.as_bytes(), b"sha512:00"])?;
    seed("platform", &[b"linux/arm64/v8", b"linux", b"x86_64", b"windows/amd64"])?;
    let descriptor = |media: &str| {
        format!(r#"{{"mediaType":"{media}","digest":"{DIGEST}","size":7,"annotations":{{"a":"b"}}}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json"),
        descriptor("application/vnd.oci.image.layer.v1.tar+gzip"),
    );
    seed("manifest", &[manifest.as_bytes()])?;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{DIGEST}","size":1,"platform":{{"os":"linux","architecture":"arm","variant":"v7","os.version":"1"}}}}]}}"#
    );
    seed("index", &[index.as_bytes()])?;
    let config = format!(
        r#"{{"created":"2024-05-01T10:00:00.123456789Z","author":"a","architecture":"amd64","variant":"v2","os":"linux","config":{{"User":"0:0","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=b"],"Entrypoint":["/e"],"Cmd":["c"],"Volumes":{{"/v":{{}}}},"WorkingDir":"/w","Labels":{{"l":"m"}},"StopSignal":"SIGTERM","Healthcheck":{{"Test":["NONE"]}},"Shell":["sh"],"OnBuild":["RUN x"]}},"rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},"history":[{{"created":"0001-01-01T00:00:00Z","created_by":"x","comment":"c","empty_layer":true}}],"comment":"c"}}"#
    );
    seed("image_config", &[config.as_bytes()])?;
    seed("spec", &[include_bytes!("spec.json")])?;
    seed("resources", &[
        br#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}],"memory":{"limit":9000000,"swap":-1,"reservation":1,"swappiness":3},"cpu":{"shares":512,"quota":1000,"period":5000,"cpus":"0-1","mems":"0","idle":1},"pids":{"limit":5}}"#,
        br#"{"blockIO":{"weight":100,"leafWeight":5,"weightDevice":[{"major":8,"minor":0,"weight":9}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}]},"hugepageLimits":[{"pageSize":"2MB","limit":9}],"network":{"classID":4,"priorities":[{"name":"lo","priority":3}]},"rdma":{"mlx":{"hcaHandles":3}},"unified":{"memory.high":"5","cgroup.x":"1"}}"#,
    ])?;
    let archives = archives()?;
    seed("tar", &archives.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"plain text, plain text")?;
    seed("decompress", &[&gzip.finish()?, &zstd::encode_all(&b"plain text, plain text"[..], 1)?, b"plain"])?;
    seed("seccomp", &[
        br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],"syscalls":[{"names":["read","write","exit"],"action":"SCMP_ACT_ALLOW"},{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390"]}},{"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"],"minKernel":"4.8"}}]}"#,
        br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_AARCH64"],"flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"name":"ptrace","action":"SCMP_ACT_TRACE","errnoRet":7,"args":[{"index":1,"value":18446744073709551615,"op":"SCMP_CMP_LE"},{"index":5,"value":4294967296,"op":"SCMP_CMP_GT"}]}]}"#,
    ])?;
    seed("systemd", &[
        b"machine.slice:libpod:abc\0abc\0TimeoutStopSec\0uint64 5\0{}".as_slice(),
        b"a.slice:x:a-b.slice\0i\0CollectMode\0'inactive'\0{\"cpu\":{\"cpus\":\"0-3\",\"quota\":5},\"pids\":{\"limit\":0}}",
        b"\0i\0After\0['a.service', 'b']\0{\"unified\":{\"cpu.max\":\"max 5\",\"memory.max\":\"7\"}}",
        b":p:n\0i\0Foo\0@a(su) [('x', 1), (\"y\", 0x2)]\0{\"devices\":[{\"allow\":true,\"type\":\"c\",\"major\":1}]}",
    ])?;
    seed("dbus", &[
        b"l\x02\x01\x01\x08\0\0\0\x05\0\0\0\x10\0\0\0\x08\x01g\0\x01s\0\0\x05\x01u\0\x03\0\0\0\x03\0\0\0abc\0".as_slice(),
        b"B\x04\x01\x01\0\0\0\0\0\0\0\x05\0\0\0\x08\x05\x01u\0\0\0\0\x03",
    ])?;
    seed(
        "cgroup_files",
        &[
            b"\x18usage_usec 5\nuser_usec 3\n\0\x19some avg10=1.50 avg60=0.00 avg300=0.00 total=42\n"
                .as_slice(),
            b"\x1a4096\n\0\x1banon 1\nfile 2\n\0\x1cmax 4\noom_kill 1\n\0!8:0 rbytes=1 wios=2\n",
            b"\x2877\n\0\x29cpu user system\n0 1 2\n\0\x2a0-1,3\n\0\x2e8:0 Read 5\nTotal 5\n",
        ],
    )?;
    seed("hierarchies", &[
        b"31 23 0:28 / /sys/fs/cgroup/cpu\\040x rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\x002:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n\x00cpuset pids",
    ])?;
    seed("framing", &[
        b"\x05{\"seq\":1,\"call\":\"create\"}\n{\"seq\":2,\"call\":\"signal\",\"signal\":15,\"all\":true}\n{\"seq\":3,\"call\":\"resize\",\"exec_id\":\"e\",\"width\":80,\"height\":25}\n",
        b"\xff{\"seq\":1,\"call\":\"exec\",\"exec_id\":\"e\",\"process\":{\"cwd\":\"/\",\"args\":[\"x\"]},\"attach\":{\"stdin\":true}}\n{\"attach\":{\"exec_id\":null,\"stdout\":true}}\nrest",
        b"\x40{\"reply\":{\"seq\":1,\"ok\":{\"created\":{\"pid\":5,\"timings\":[[\"a\",1]]}}}}\n{\"reply\":{\"seq\":1,\"error\":{\"kind\":\"conflict\",\"message\":\"m\"}}}\n{\"event\":{\"type\":\"exec_exit\",\"exec_id\":\"e\",\"code\":1}}\n{\"ok\":{\"pid\":3}}\n",
    ])?;
    seed("mux", &[b"\x03\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x02hi"])?;
    seed("mount_options", &[
        b"bind,ro,rnosuid,rshared,size=5,idmap,tmpcopyup".as_slice(),
        b"rbind,rro,rnodev,noexec,strictatime,nodiratime,nosymfollow,rprivate,ridmap",
        b"remount,rw,rrw,sync,async,lazytime,nolazytime,mand,dirsync,relatime,norelatime,noatime,atime,defaults",
        b"runbindable,slave,iversion,silent,loud,rsymfollow,rstrictatime,rnostrictatime,rdiratime,mode=755",
    ])?;
    seed("oci", &[
        b"--bundle\0/x\0--preserve-fds=3\0-d\0--console-socket\0/s\0--pid-file\0/p\0id".as_slice(),
        b"-e\0A=1\0--user\0001:2\0--cwd=/\0-t\0--cap\0CAP_KILL\0c\0ls\0-l\0--\0--tty",
        b"--memory\x0050m\0--cpu-share=5\0--pids-limit\0-1\0c",
        b"--all=false\0c\0KILL",
        br#"{"format":1,"ociVersion":"1.3.0","id":"a","bundle":"/b","rootfs":"/b/r","created":"2026-11-21T14:02:01Z","annotations":{"k":"v"},"pid":5,"startTime":7,"group":"none","ownPids":true,"rootless":false}"#,
    ])?;
    seed(
        "oci_texts",
        &[
            b"RTMIN+3\nPID x\n1 a\n2 b\n".as_slice(),
            b"1h30m\n",
            b"1.5 GiB\n",
            b"12 (a b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20",
        ],
    )?;
    seed("process", &[
        br#"{"terminal":true,"consoleSize":{"height":25,"width":80},"user":{"uid":1,"gid":2,"umask":63,"additionalGids":[5]},"args":["sh"],"env":["A=b","A=c"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"],"inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":10,"soft":5}],"scheduler":{"policy":"SCHED_FIFO","priority":5,"flags":["SCHED_FLAG_RECLAIM"]},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":3},"execCPUAffinity":{"initial":"0-3,7","final":"1"},"oomScoreAdj":5,"noNewPrivileges":true}"#,
    ])?;
    seed("user", &[
        b"web:staff\0root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:W:/var/www:/bin/sh\n\0disk:x:6:root,web\nstaff:x:50:web\n",
        b"33\0web:x:33:44:W:/var/www:/bin/sh\n\0disk:x:6:root,web\nstaff:x:50:web\n",
        b"1000:1000\0\0",
    ])
}

/// An archive for each kind of entry, with what only pax can say about some.
fn archives() -> io::Result<Vec<Vec<u8>>> {
    let mut file = Entry::new("n".repeat(150), Kind::File);
    file.size = 5;
    file.mtime = Timestamp { seconds: -1, nanoseconds: 5 };
    file.xattrs = vec![(b"user.x".to_vec(), b"value".to_vec())];
    let mut sparse = Entry::new("sparse", Kind::File);
    sparse.size = 9000;
    sparse.sparse = Some(vec![Segment { offset: 100, length: 3 }, Segment { offset: 4096, length: 2 }]);
    let entries = [
        (file, "hello"),
        (sparse, "holes"),
        (Entry::new("directory/", Kind::Directory), ""),
        (Entry::new("link", Kind::HardLink(b"file".to_vec())), ""),
        (Entry::new("link", Kind::Symlink("t".repeat(120).into_bytes())), ""),
        (Entry::new("null", Kind::CharDevice(1, 3)), ""),
        (Entry::new("fifo", Kind::Fifo), ""),
    ];
    let archive = |(entry, data): (Entry, &str)| {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry)?;
        writer.write_all(data.as_bytes())?;
        Ok(writer.finish()?.0)
    };
    entries.into_iter().map(archive).collect()
}

fn seed(target: &str, inputs: &[&[u8]]) -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    for (number, input) in inputs.iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number}")), input)?;
    }
    Ok(())
}
