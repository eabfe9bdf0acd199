#!/bin/bash
# The peers that creel is measured against: Docker, containerd, podman, crun and runc from Debian packages.
#
# They live in a chroot (Debian sid) that one holder process owns, with its own pid, mount, uts and ipc namespaces and
# a network namespace without a way out. No mount, rule or process leaks into the machine; `down` ends all of it.
#
#   bench/peers.sh bootstrap         make the chroot and install the peers (minutes, once; as root)
#   bench/peers.sh up | down         the holder
#   bench/peers.sh sh CMD...         run CMD among the peers, who see $LAB as /lab
#   bench/peers.sh dockerd-start [FLAGS] | dockerd-stop
#   bench/peers.sh prepare           the image busybox in Docker and podman, and an OCI bundle in /lab/bundle
set -euo pipefail
LAB=${LAB:-/var/tmp/creel-lab}; ROOT=${ROOT:-$LAB-root}; NS=${NS:-peers}
mkdir -p "$LAB/run" "$LAB/logs" "$LAB/img"

bootstrap() {
  local mirror; mirror=$(apt-get indextargets --format '$(SITE)' | grep -E '/debian/?$' | head -1)
  export DEBIAN_FRONTEND=noninteractive
  command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap
  [ -x "$ROOT/usr/bin/apt-get" ] || debootstrap --variant=minbase --include=ca-certificates sid "$ROOT" "$mirror"
  printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"; chmod 755 "$ROOT/usr/sbin/policy-rc.d"
  ROOT=$ROOT unshare -m --propagation private bash -c 'mount -t proc proc "$ROOT/proc"; mount --rbind /dev "$ROOT/dev"
    cp /etc/resolv.conf "$ROOT/etc/resolv.conf" 2>/dev/null || true
    chroot "$ROOT" apt-get update && exec chroot "$ROOT" apt-get install -y --no-install-recommends docker.io docker-cli \
      podman crun runc docker-registry skopeo iptables nftables netavark conmon passt tini iproute2 procps busybox-static hyperfine jq curl'
}
holder() { local p; p=$(cat "$LAB/run/holder.pid" 2>/dev/null) && grep -qs tini "/proc/$p/comm" && echo "$p"; }
up() {
  holder >/dev/null && return 0
  [ -x "$ROOT/usr/sbin/dockerd" ] || { echo "no peers in $ROOT: run bench/peers.sh bootstrap" >&2; return 1; }
  ip netns list | grep -qw "$NS" || ip netns add "$NS"
  ip -n "$NS" link set lo up; mkdir -p "$ROOT/lab" "$ROOT/.old"
  LAB=$LAB ROOT=$ROOT setsid nsenter --net="/run/netns/$NS" unshare -m -p -u -i -f --propagation private bash -c '
      set -e
      mount --bind "$ROOT" "$ROOT"; cd "$ROOT"
      mount -t proc proc proc; mount -t sysfs sysfs sys; mount --rbind /sys/fs/cgroup sys/fs/cgroup
      umount sys/fs/cgroup/unified 2>/dev/null || true   # crun refuses a hybrid layout whose cgroup2 owns a controller
      mount --rbind /dev dev; mount -t tmpfs -o mode=755 tmpfs run; mkdir -p run/lock run/netns
      mount -t tmpfs -o mode=1777 tmpfs tmp; mount --rbind "$LAB" lab
      pivot_root . .old; cd /; umount -l /.old; mount --make-rshared /
      hostname peers; printf "127.0.0.1 localhost peers\n" >run/hosts; mount --bind run/hosts etc/hosts
      exec /usr/bin/tini-static -s -- sleep infinity' </dev/null >"$LAB/logs/holder.log" 2>&1 &
  local u=$! p
  for _ in $(seq 50); do
    p=$(awk '{print $1}' "/proc/$u/task/$u/children" 2>/dev/null) || true
    if [ -n "${p:-}" ] && grep -qs tini "/proc/$p/comm"; then echo "$p" >"$LAB/run/holder.pid"; return 0; fi
    sleep 0.1
  done
  echo "the holder did not come up:" >&2; cat "$LAB/logs/holder.log" >&2; return 1
}
enter() {
  up
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    PODMAN_IGNORE_CGROUPSV1_WARNING=1 nsenter -m -u -i -p --net="/run/netns/$NS" -t "$(holder)" -- "$@"
}
dockerd_start() {
  enter docker version >/dev/null 2>&1 && return 0
  enter setsid bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; rm -f /run/docker.pid
    dockerd --data-root /var/lib/docker --exec-opt native.cgroupdriver=cgroupfs --storage-driver overlay2 "$@" \
      </dev/null >/lab/logs/dockerd.log 2>&1 & echo $! >/run/lab-dockerd.pid' _ "$@"
  for _ in $(seq 150); do enter docker version >/dev/null 2>&1 && return 0; sleep 0.2; done
  echo "dockerd did not come up" >&2; tail -20 "$LAB/logs/dockerd.log" >&2; return 1
}
dockerd_stop() {
  enter bash -c 'p=$(cat /run/lab-dockerd.pid 2>/dev/null) || exit 0; kill -TERM $p 2>/dev/null || exit 0
    for i in $(seq 100); do [ -d /proc/$p ] || exit 0; sleep 0.2; done; kill -KILL $p' || true
}
prepare() {
  enter bash -c 'set -e
    rm -rf /lab/bundle; mkdir -p /lab/bundle/rootfs/bin /lab/bundle/rootfs/etc; cd /lab/bundle
    cp /usr/bin/busybox rootfs/bin/; for c in $(rootfs/bin/busybox --list); do [ $c = busybox ] || ln -s busybox rootfs/bin/$c; done
    printf "root:x:0:0:root:/root:/bin/sh\n" >rootfs/etc/passwd; printf "root:x:0:\n" >rootfs/etc/group
    tar -C rootfs --numeric-owner -cf /lab/img/bench.tar .
    runc spec; jq ".process.terminal=false | .process.args=[\"true\"]" config.json >c; mv c config.json
    P="ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    docker image inspect bench >/dev/null 2>&1 || docker import -m bench -c "CMD [\"sh\"]" -c "$P" /lab/img/bench.tar bench:latest >/dev/null
    podman image exists localhost/bench || podman import -c "CMD [\"sh\"]" /lab/img/bench.tar localhost/bench:latest >/dev/null 2>&1'
}
down() { local p; dockerd_stop; p=$(holder) && kill -KILL "$p"; rm -f "$LAB/run/holder.pid"; ip netns del "$NS" 2>/dev/null || true; }
case "${1:-}" in
  bootstrap|up|down|prepare) "$1";;
  dockerd-start) shift; dockerd_start "$@";; dockerd-stop) dockerd_stop;;
  sh) shift; enter "$@";;
  *) sed -n '2,12p' "$0"; exit 2;;
esac
