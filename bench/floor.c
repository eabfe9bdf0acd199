/* The floor: what the kernel takes for the container of bench/oci, and nothing else.
 *
 *   floor run ROOTFS PROGRAM ARG...    six namespaces, control groups, the loopback interface, a keyring, the mounts of
 *                                      the default Spec, masked and read-only paths, pivot_root, capabilities, a small
 *                                      system call filter, execve
 *   floor exec PID PROGRAM ARG...      join the control groups and the namespaces of that process, execve
 *   floor create DIR ROOTFS PROGRAM ARG... | start DIR | delete DIR
 *                                      the same container by three programs, as callers of a runtime want it: the first
 *                                      returns when all is set up, the second when the program runs; what the last two
 *                                      need is in DIR
 *   floor peak NAME PROGRAM ARG...     run a program and print NAME and the most memory that it had resident, in KiB
 *
 * No configuration is read, nothing is checked beyond the results of calls, no error is explained. bench/oci measures
 * creel, crun and runc against it: cc -O2 -static -o floor floor.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define DO(call) do { if ((call) < 0) { perror(#call); _exit(125); } } while (0)

static const char *const v1[] = { "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids", "blkio",
                                  "net_cls", "net_prio", "perf_event", "hugetlb", "systemd", "rdma", "misc", 0 };
static int created = -1;                                    /* where the child says that it is set up */
static char groups[32][160], names[32][64];
static int tasks[32], ngroups, unified = -1;

static void make_groups(void) {
    char dir[128], (*resolved)[64] = names;
    int seen = 0;
    for (const char *const *name = v1; *name; name++) {
        snprintf(dir, sizeof dir, "/sys/fs/cgroup/%s", *name);
        char link[64];
        ssize_t n = readlink(dir, link, sizeof link - 1);   /* cpu -> cpu,cpuacct: one hierarchy */
        if (n > 0) link[n] = 0;
        snprintf(resolved[seen], 64, "%s", n > 0 ? link : *name);
        int again = 0;
        for (int i = 0; i < seen; i++) again |= !strcmp(resolved[i], resolved[seen]);
        if (again || access(dir, F_OK)) continue;
        memmove(names[ngroups], names[seen], sizeof *names);
        seen++;
        snprintf(groups[ngroups], 160, "%s/floor-%d", dir, getpid());
        if (mkdir(groups[ngroups], 0755) < 0) continue;
        snprintf(dir, sizeof dir, "%.120s/tasks", groups[ngroups]);
        if (strstr(groups[ngroups], "/cpuset/")) {          /* an empty cpuset takes nobody in */
            char file[160], value[64];
            const char *const what[] = { "cpuset.cpus", "cpuset.mems" };
            for (int i = 0; i < 2; i++) {
                snprintf(file, sizeof file, "/sys/fs/cgroup/cpuset/%s", what[i]);
                int in = open(file, O_RDONLY | O_CLOEXEC);
                ssize_t got = read(in, value, sizeof value);
                close(in);
                snprintf(file, sizeof file, "%.120s/%s", groups[ngroups], what[i]);
                int out = open(file, O_WRONLY | O_CLOEXEC);
                if (write(out, value, got) < 0) perror(file);
                close(out);
            }
        }
        tasks[ngroups++] = open(dir, O_WRONLY | O_CLOEXEC);
    }
    const char *top = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
    snprintf(dir, sizeof dir, "%s/cgroup.procs", top);
    if (access(dir, F_OK) == 0) {
        snprintf(groups[ngroups], 160, "%s/floor-%d", top, getpid());
        if (mkdir(groups[ngroups], 0755) == 0) {
            unified = open(groups[ngroups], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            tasks[ngroups++] = -1;
        }
    }
}

static int clone3(unsigned long long flags, int *pidfd, int cgroup) {
    struct clone_args args = { .flags = flags | CLONE_PIDFD, .pidfd = (unsigned long)pidfd, .exit_signal = SIGCHLD };
    if (cgroup >= 0) { args.flags |= CLONE_INTO_CGROUP; args.cgroup = cgroup; }
    return syscall(SYS_clone3, &args, sizeof args);
}

static void filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xc000003e, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kexec_load, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
    struct sock_fprog program = { sizeof code / sizeof *code, code };
    DO(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void capabilities(void) {
    const unsigned long long keep = 0xa80425fb;              /* Docker's fourteen */
    for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        if (!(keep >> cap & 1)) DO(prctl(PR_CAPBSET_DROP, cap));
    struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2] = { { keep | 1 << 21, keep | 1 << 21, 0 }, { 0, 0, 0 } };
    DO(syscall(SYS_capset, &head, data));                    /* CAP_SYS_ADMIN until the filter is loaded */
}

/* The control groups of a process, opened for joining. */
static void find_groups(const char *pid) {
    char file[64], text[4096], dir[256];
    snprintf(file, sizeof file, "/proc/%s/cgroup", pid);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    DO(fd);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(0, "\n")) {
        char *name = strchr(line, ':'), *path = name ? strchr(name + 1, ':') : 0;
        if (!path) continue;
        *path++ = 0;
        name = strncmp(name + 1, "name=", 5) ? name + 1 : name + 6;
        if (*name) {
            snprintf(dir, sizeof dir, "/sys/fs/cgroup/%.32s%.200s/tasks", name, path);
            int task = open(dir, O_WRONLY | O_CLOEXEC);
            if (task >= 0) tasks[ngroups++] = task;
        } else {
            const char *top = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "" : "/unified";
            snprintf(dir, sizeof dir, "/sys/fs/cgroup%s%.200s/cgroup.procs", top, path);
            if (access(dir, F_OK)) continue;                 /* not mounted */
            dir[strlen(dir) - strlen("/cgroup.procs")] = 0;
            unified = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
    }
}

static void join_groups(void) {
    for (int i = 0; i < ngroups; i++) if (tasks[i] >= 0 && write(tasks[i], "0", 1) < 0) perror("join");
}

static void loopback(void) {
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    DO(fd);
    DO(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
}

/* The mount of type cgroup of the default Spec. */
static void mount_groups(void) {
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME;
    if (unified >= 0 && ngroups == 1) {
        DO(mount("cgroup", "sys/fs/cgroup", "cgroup2", flags | MS_RDONLY, 0));
        return;
    }
    DO(mount("tmpfs", "sys/fs/cgroup", "tmpfs", flags, "mode=755"));
    for (int i = 0; i < ngroups; i++) {
        char place[128], data[96];
        if (tasks[i] < 0) continue;
        snprintf(place, sizeof place, "sys/fs/cgroup/%s", names[i]);
        snprintf(data, sizeof data, "%s%s", strcmp(names[i], "systemd") ? "" : "none,name=", names[i]);
        DO(mkdir(place, 0755));
        if (mount("cgroup", place, "cgroup", flags | MS_RDONLY, data) < 0) perror(place);
    }
    DO(mount(0, "sys/fs/cgroup", 0, MS_REMOUNT | MS_BIND | flags | MS_RDONLY, 0));
}

static void inside(const char *rootfs, char **argv, int gate) {
    join_groups();
    DO(unshare(CLONE_NEWCGROUP));
    loopback();
    syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, "floor");
    DO(sethostname("floor", 5));
    DO(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    DO(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0));
    DO(chdir(rootfs));
    DO(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    DO(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    DO(mkdir("dev/pts", 0755)); DO(mkdir("dev/shm", 0755)); DO(mkdir("dev/mqueue", 0755));
    DO(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    DO(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"));
    DO(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    DO(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0));
    mount_groups();
    umask(0);
    const struct { const char *path; int minor, major; } nodes[] = { { "dev/null", 3, 1 }, { "dev/zero", 5, 1 },
        { "dev/full", 7, 1 }, { "dev/random", 8, 1 }, { "dev/urandom", 9, 1 }, { "dev/tty", 0, 5 } };
    for (int i = 0; i < 6; i++) DO(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    DO(symlink("/proc/self/fd", "dev/fd")); DO(symlink("/proc/self/fd/0", "dev/stdin"));
    DO(symlink("/proc/self/fd/1", "dev/stdout")); DO(symlink("/proc/self/fd/2", "dev/stderr"));
    DO(symlink("pts/ptmx", "dev/ptmx"));
    const char *const readonly[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
    for (int i = 0; i < 5; i++) {
        if (mount(readonly[i], readonly[i], 0, MS_BIND | MS_REC, 0) < 0) continue;
        DO(mount(0, readonly[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    }
    const char *const masked[] = { "proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys",
        "proc/latency_stats", "proc/timer_list", "proc/timer_stats", "proc/sched_debug", "proc/scsi", "sys/firmware",
        "sys/devices/virtual/powercap" };
    for (int i = 0; i < 12; i++)
        if (mount("/dev/null", masked[i], 0, MS_BIND, 0) < 0 && errno == ENOTDIR)
            mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1");
    DO(syscall(SYS_pivot_root, ".", "."));
    DO(umount2(".", MNT_DETACH));
    DO(chdir("/"));
    setsid();
    capabilities();
    char go;
    if (gate >= 0) {                                         /* it is created; what starts it waits for the execve */
        DO(write(created, "c", 1));
        close(created);
        DO(read(gate, &go, 1));
    }
    filter();
    char *env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0 };
    execve(argv[0], argv, env);
    perror(argv[0]);
    _exit(127);
}

static int in_three(int argc, char **argv) {
    int pid, pidfd = -1;
    DO(strcmp(argv[1], "create") ? 0 : mkdir(argv[2], 0700));
    DO(chdir(argv[2]));
    if (!strcmp(argv[1], "create") && argc > 4) {
        int ready[2], ran;
        char c;
        DO(mkfifo("gate", 0600)); DO(mkfifo("ran", 0600)); DO(pipe2(ready, O_CLOEXEC));
        int gate = open("gate", O_RDWR | O_CLOEXEC);
        DO(gate);
        DO(ran = open("ran", O_RDWR | O_CLOEXEC));
        created = ready[1];
        make_groups();
        pid = clone3(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS, &pidfd, unified);
        DO(pid);
        if (pid == 0) inside(argv[3], argv + 4, gate);
        FILE *state = fopen("state", "w");
        fprintf(state, "%d\n", pid);
        for (int i = 0; i < ngroups; i++) fprintf(state, "%s\n", groups[i]);
        fclose(state);
        DO(read(ready[0], &c, 1));
    } else if (!strcmp(argv[1], "start")) {
        int gate = open("gate", O_WRONLY | O_CLOEXEC);
        DO(gate);
        int ran = open("ran", O_RDONLY | O_CLOEXEC);
        char c;
        DO(ran);
        DO(write(gate, "g", 1));
        DO(read(ran, &c, 1));                                /* the end: the execve has closed the other one */
    } else {
        FILE *state = fopen("state", "r");
        char line[160];
        fgets(line, sizeof line, state);
        pidfd = syscall(SYS_pidfd_open, atoi(line), 0);
        if (pidfd >= 0) {
            syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, 0, 0);
            struct pollfd end = { .fd = pidfd, .events = POLLIN };
            DO(poll(&end, 1, -1));
        }
        while (fgets(line, sizeof line, state)) {
            line[strcspn(line, "\n")] = 0;
            if (rmdir(line) < 0) perror(line);
        }
        DO(unlink("gate")); DO(unlink("ran")); DO(unlink("state")); DO(rmdir(argv[2]));
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 2 && (!strcmp(argv[1], "create") || !strcmp(argv[1], "start") || !strcmp(argv[1], "delete")))
        return in_three(argc, argv);
    if (argc < 4) { fprintf(stderr, "usage: floor run ROOTFS PROGRAM ARG... | floor exec PID PROGRAM ARG...\n"); return 2; }
    int pidfd = -1, status = 0;
    if (!strcmp(argv[1], "peak")) {
        int pid = clone3(0, &pidfd, -1);
        DO(pid);
        if (pid == 0) { execv(argv[3], argv + 3); perror(argv[3]); _exit(127); }
        struct rusage usage;
        DO(wait4(pid, &status, 0, &usage));
        printf("%s\t%ld\n", argv[2], usage.ru_maxrss);
        return status != 0;
    }
    if (!strcmp(argv[1], "exec")) {
        int target = syscall(SYS_pidfd_open, atoi(argv[2]), 0);
        DO(target);
        find_groups(argv[2]);
        DO(setns(target, CLONE_NEWPID));
        int pid = clone3(0, &pidfd, unified);
        DO(pid);
        if (pid == 0) {
            join_groups();
            DO(setns(target, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP));
            capabilities(); filter(); execv(argv[3], argv + 3); perror(argv[3]); _exit(127);
        }
        DO(waitpid(pid, &status, 0));
    } else {
        make_groups();
        int pid = clone3(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS, &pidfd, unified);
        DO(pid);
        if (pid == 0) inside(argv[2], argv + 3, -1);
        DO(waitpid(pid, &status, 0));
        for (int i = 0; i < ngroups; i++) if (rmdir(groups[i]) < 0) perror(groups[i]);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
