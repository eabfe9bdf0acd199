// The floor below bench/pull, and the meter by which all are measured.
//
//   pullfloor pull HOST PORT REPOSITORY TAG DIRECTORY
//       does what a pull cannot do without, and nothing else: asks for the manifest, downloads each layer (a thread
//       each), hashes and writes what comes, inflates it, hashes that and writes the files with their owners, modes
//       and times, and makes all of it durable (one syncfs). It looks for no trick in a name, has no progress to tell,
//       no database and no recovery. Inflating and hashing are the fastest there are for a stream on this processor:
//       ISA-L's assembly and OpenSSL's.
//   pullfloor meter PIDS COMMAND...
//       runs a command and prints: wall seconds, its CPU seconds, those of the processes PIDS (and of the children that
//       they waited for) meanwhile, the peak memory of these in KiB, its own peak memory in KiB, its exit status.
//
// cc -O2 -o pullfloor bench/pullfloor.c -lisal -lcrypto -lpthread (Debian: libisal-dev libssl-dev)
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <isa-l.h>
#include <netdb.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAIL(what) do { fprintf(stderr, "pullfloor: %s (line %d): %s\n", what, __LINE__, strerror(errno)); exit(1); } while (0)
#define IN (128 << 10)
#define OUT (256 << 10)

static const char *host, *port, *repository;
static char root[4096];

// One GET; returns the connection, with what came of the body in buffer (*have bytes) and its length.
static int get(const char *path, unsigned char *buffer, size_t room, size_t *have, long long *length) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found)) FAIL("getaddrinfo");
    int s = -1;
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        s = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(s, a->ai_addr, a->ai_addrlen) == 0) break;
        close(s); s = -1;
    }
    if (s < 0) FAIL("connect");
    freeaddrinfo(found);
    char request[2048];
    int n = snprintf(request, sizeof request, "GET /v2/%s/%s HTTP/1.1\r\nHost: %s:%s\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\n"
        "Accept: application/vnd.docker.distribution.manifest.v2+json\r\nConnection: close\r\n\r\n", repository, path, host, port);
    if (write(s, request, n) != n) FAIL("request");
    size_t got = 0; unsigned char *end;
    for (;;) {
        ssize_t r = read(s, buffer + got, room - got - 1);
        if (r <= 0) FAIL("response");
        got += r; buffer[got] = 0;
        if ((end = memmem(buffer, got, "\r\n\r\n", 4))) break;
    }
    if (strncmp((char *)buffer + 9, "200", 3)) { fprintf(stderr, "%.80s\n", buffer); exit(1); }
    *end = 0;
    char *header = strcasestr((char *)buffer, "content-length:");
    if (!header) FAIL("no length");
    *length = atoll(header + 15);
    *have = got - (end + 4 - buffer);
    memmove(buffer, end + 4, *have);
    return s;
}

static char *small(const char *path) {
    unsigned char *buffer = malloc(1 << 20); size_t have; long long length;
    int s = get(path, buffer, 1 << 20, &have, &length);
    while ((long long)have < length) { ssize_t r = read(s, buffer + have, (1 << 20) - 1 - have); if (r <= 0) FAIL("short"); have += r; }
    close(s); buffer[have] = 0;
    return (char *)buffer;
}

// A tar archive that comes in pieces.
struct late { char *path; long long mtime; struct late *next; };
struct tar {
    int root, dir, file;
    char parent[4096];
    unsigned char block[512]; size_t filled;
    long long data, padding, extended;
    char kind, flag, *longname, *longlink, *pax; size_t pax_at;
    char name[4096], link[4096];
    unsigned mode, uid, gid; long long mtime;
    struct late *late;
    unsigned long long files, bytes;
};

static long long octal(const unsigned char *p, int n) {
    long long v = 0;
    if (*p & 0x80) { v = *p & 0x7f; for (int i = 1; i < n; i++) v = v << 8 | p[i]; return v; }
    for (int i = 0; i < n && p[i]; i++) if (p[i] >= '0' && p[i] <= '7') v = v * 8 + p[i] - '0';
    return v;
}

// The directory of the present name, kept open for the next one.
static const char *at(struct tar *t) {
    char *slash = strrchr(t->name, '/');
    size_t n = slash ? slash - t->name : 0;
    if (t->dir < 0 || strlen(t->parent) != n || memcmp(t->parent, t->name, n)) {
        if (t->dir >= 0) close(t->dir);
        memcpy(t->parent, t->name, n); t->parent[n] = 0;
        t->dir = openat(t->root, n ? t->parent : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (t->dir < 0) FAIL(t->parent);
    }
    return slash ? slash + 1 : t->name;
}

static void attributes(struct tar *t, const char *base) {
    if ((t->uid || t->gid) && fchownat(t->dir, base, t->uid, t->gid, AT_SYMLINK_NOFOLLOW)) FAIL("chown");
    if (t->flag != '2' && (t->mode & 07000) && fchmodat(t->dir, base, t->mode, 0)) FAIL("chmod");
    struct timespec times[2] = {{t->mtime, 0}, {t->mtime, 0}};
    if (utimensat(t->dir, base, times, AT_SYMLINK_NOFOLLOW)) FAIL("times");
}

static void close_file(struct tar *t) {
    if ((t->uid || t->gid) && fchown(t->file, t->uid, t->gid)) FAIL("chown");
    if ((t->mode & 07000) && fchmod(t->file, t->mode)) FAIL("chmod");
    struct timespec times[2] = {{t->mtime, 0}, {t->mtime, 0}};
    if (futimens(t->file, times)) FAIL("times");
    close(t->file); t->file = -1;
}

static void begin(struct tar *t) {
    unsigned char *h = t->block;
    t->flag = h[156]; t->data = octal(h + 124, 12); t->padding = -t->data & 511;
    if (t->flag == 'x' || t->flag == 'L' || t->flag == 'K' || t->flag == 'g') {
        t->extended = t->data; t->pax = malloc(t->data + 1); t->pax_at = 0; t->kind = t->flag; return;
    }
    t->kind = 0;
    if (t->longname) { strcpy(t->name, t->longname); free(t->longname); t->longname = 0; }
    else if (!memcmp(h + 257, "ustar\0", 6) && h[345]) snprintf(t->name, sizeof t->name, "%.155s/%.100s", h + 345, h);
    else snprintf(t->name, sizeof t->name, "%.100s", h);
    if (t->longlink) { strcpy(t->link, t->longlink); free(t->longlink); t->longlink = 0; }
    else snprintf(t->link, sizeof t->link, "%.100s", h + 157);
    size_t n = strlen(t->name);
    while (n > 1 && t->name[n - 1] == '/') t->name[--n] = 0;
    if (!strncmp(t->name, "./", 2)) memmove(t->name, t->name + 2, n - 1);
    t->mode = octal(h + 100, 8); t->uid = octal(h + 108, 8); t->gid = octal(h + 116, 8); t->mtime = octal(h + 136, 12);
    t->files++;
    if (!strcmp(t->name, ".")) return;
    const char *base = at(t);
    if (!strncmp(base, ".wh.", 4)) { // a whiteout, as overlayfs has it
        if (strcmp(base, ".wh..wh..opq") && mknodat(t->dir, base + 4, S_IFCHR, 0)) FAIL(t->name);
        t->data = t->padding = 0; return;
    }
    for (int again = 0;; again++) {
        int r;
        switch (t->flag) {
        case 0: case '0': r = t->file = openat(t->dir, base, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, t->mode & 0777); break;
        case '1': r = linkat(t->root, strncmp(t->link, "./", 2) ? t->link : t->link + 2, t->dir, base, 0); break;
        case '2': r = symlinkat(t->link, t->dir, base); break;
        case '3': r = mknodat(t->dir, base, S_IFCHR | (t->mode & 0777), makedev(octal(h + 329, 8), octal(h + 337, 8))); break;
        case '4': r = mknodat(t->dir, base, S_IFBLK | (t->mode & 0777), makedev(octal(h + 329, 8), octal(h + 337, 8))); break;
        case '5': r = mkdirat(t->dir, base, t->mode & 0777); if (r && errno == EEXIST) r = 0; break;
        case '6': r = mknodat(t->dir, base, S_IFIFO | (t->mode & 0777), 0); break;
        default: errno = EINVAL; r = -1;
        }
        if (r >= 0) break;
        if (errno == EEXIST && !again) { unlinkat(t->dir, base, 0); continue; }
        FAIL(t->name);
    }
    if (t->flag == '5') {
        if ((t->uid || t->gid) && fchownat(t->dir, base, t->uid, t->gid, 0)) FAIL("chown");
        if ((t->mode & 07000) && fchmodat(t->dir, base, t->mode, 0)) FAIL("chmod");
        struct late *l = malloc(sizeof *l); l->path = strdup(t->name); l->mtime = t->mtime; l->next = t->late; t->late = l;
    } else if (t->flag == 0 || t->flag == '0') {
        if (!t->data) close_file(t);
    } else if (t->flag != '1') attributes(t, base);
    if (t->flag && t->flag != '0') t->data = t->padding = 0;
}

static void end_extended(struct tar *t) {
    t->pax[t->pax_at] = 0;
    if (t->kind == 'L') t->longname = t->pax;
    else if (t->kind == 'K') t->longlink = t->pax;
    else {
        for (char *p = t->pax; t->kind == 'x' && p < t->pax + t->pax_at;) {
            long n = strtol(p, 0, 10); char *key = strchr(p, ' ') + 1, *value = strchr(key, '=') + 1; p[n - 1] = 0;
            if (!strncmp(key, "path=", 5)) t->longname = strdup(value);
            if (!strncmp(key, "linkpath=", 9)) t->longlink = strdup(value);
            p += n;
        }
        free(t->pax);
    }
}

static void feed(struct tar *t, const unsigned char *p, size_t n) {
    t->bytes += n;
    while (n) {
        if (t->data) {
            size_t k = (long long)n < t->data ? n : (size_t)t->data;
            if (t->kind) { memcpy(t->pax + t->pax_at, p, k); t->pax_at += k; }
            else if (t->file >= 0 && write(t->file, p, k) != (ssize_t)k) FAIL("write");
            p += k; n -= k; t->data -= k;
            if (!t->data) { if (t->kind) end_extended(t); else if (t->file >= 0) close_file(t); }
        } else if (t->padding) {
            size_t k = (long long)n < t->padding ? n : (size_t)t->padding;
            p += k; n -= k; t->padding -= k;
        } else {
            size_t k = 512 - t->filled < n ? 512 - t->filled : n;
            memcpy(t->block + t->filled, p, k); t->filled += k; p += k; n -= k;
            if (t->filled == 512) { t->filled = 0; if (t->block[0]) begin(t); }
        }
    }
}

struct layer { char digest[65]; pthread_t thread; struct tar tar; };

static void check(EVP_MD_CTX *hash, const char *expected) {
    unsigned char sum[32]; char text[65];
    EVP_DigestFinal(hash, sum, 0);
    for (int i = 0; i < 32; i++) sprintf(text + 2 * i, "%02x", sum[i]);
    if (expected && strcmp(text, expected)) { fprintf(stderr, "pullfloor: wrong digest %s\n", text); exit(1); }
    EVP_MD_CTX_free(hash);
}

static void *bring(void *argument) {
    struct layer *l = argument; struct tar *t = &l->tar;
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", root, l->digest);
    if (mkdir(path, 0755)) FAIL(path);
    t->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC); t->dir = t->file = -1;
    snprintf(path, sizeof path, "%s/%s.blob", root, l->digest);
    int blob = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (t->root < 0 || blob < 0) FAIL(path);
    unsigned char *in = malloc(IN), *out = malloc(OUT);
    EVP_MD_CTX *packed = EVP_MD_CTX_new(), *plain = EVP_MD_CTX_new();
    EVP_DigestInit(packed, EVP_sha256()); EVP_DigestInit(plain, EVP_sha256());
    struct inflate_state z; isal_inflate_init(&z); z.crc_flag = ISAL_GZIP;
    snprintf(path, sizeof path, "blobs/sha256:%s", l->digest);
    size_t have; long long length;
    int s = get(path, in, IN, &have, &length);
    while (length > 0) {
        if (!have) { ssize_t r = read(s, in, IN); if (r <= 0) FAIL("read"); have = r; }
        EVP_DigestUpdate(packed, in, have);
        if (write(blob, in, have) != (ssize_t)have) FAIL("write");
        length -= have; z.next_in = in; z.avail_in = have; have = 0;
        do {
            z.next_out = out; z.avail_out = OUT;
            int e = isal_inflate(&z);
            if (e) { fprintf(stderr, "pullfloor: inflate %d\n", e); exit(1); }
            size_t n = OUT - z.avail_out;
            EVP_DigestUpdate(plain, out, n);
            feed(t, out, n);
        } while (z.avail_out == 0 || (z.avail_in && z.block_state != ISAL_BLOCK_FINISH));
    }
    check(packed, l->digest); check(plain, 0);
    for (struct late *d = t->late; d; d = d->next) {
        struct timespec times[2] = {{d->mtime, 0}, {d->mtime, 0}};
        if (utimensat(t->root, d->path, times, AT_SYMLINK_NOFOLLOW)) FAIL(d->path);
    }
    close(s); close(blob); free(in); free(out);
    return 0;
}

static int pull(char **a) {
    host = a[0]; port = a[1]; repository = a[2];
    char path[4200];
    snprintf(root, sizeof root, "%s", a[4]);
    if (mkdir(root, 0755) && errno != EEXIST) FAIL(root);
    umask(0);
    snprintf(path, sizeof path, "manifests/%s", a[3]);
    char *manifest = small(path), *p = strstr(manifest, "\"config\""), *d = strstr(p, "sha256:");
    snprintf(path, sizeof path, "blobs/%.71s", d); free(small(path));
    static struct layer layers[200]; int n = 0;
    for (p = strstr(manifest, "\"layers\""); (p = strstr(p, "sha256:")); p += 71) memcpy(layers[n++].digest, p + 7, 64);
    for (int i = 0; i < n; i++) if (pthread_create(&layers[i].thread, 0, bring, &layers[i])) FAIL("thread");
    unsigned long long files = 0, bytes = 0;
    for (int i = 0; i < n; i++) { pthread_join(layers[i].thread, 0); files += layers[i].tar.files; bytes += layers[i].tar.bytes; }
    int fd = open(root, O_RDONLY | O_DIRECTORY);
    if (syncfs(fd)) FAIL("syncfs");
    printf("%d layers, %llu entries, %llu bytes\n", n, files, bytes);
    return 0;
}

static double seconds(struct timeval t) { return t.tv_sec + t.tv_usec * 1e-6; }

// CPU seconds of the processes and of the children that they waited for, and their peak memory together.
static double processes(char *pids, long *peak) {
    double cpu = 0; *peak = 0;
    for (char *p = pids; *p;) {
        long pid = strtol(p, &p, 10); if (*p == ',') p++;
        if (!pid) continue;
        char path[64], text[4096]; long kib = 0;
        snprintf(path, sizeof path, "/proc/%ld/stat", pid);
        FILE *f = fopen(path, "r"); if (!f) FAIL(path);
        size_t n = fread(text, 1, sizeof text - 1, f); text[n] = 0; fclose(f);
        unsigned long u, s; long cu, cs;
        sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld", &u, &s, &cu, &cs);
        cpu += (double)(u + s + cu + cs) / sysconf(_SC_CLK_TCK);
        snprintf(path, sizeof path, "/proc/%ld/status", pid);
        if (!(f = fopen(path, "r"))) FAIL(path);
        while (fgets(text, sizeof text, f)) if (sscanf(text, "VmHWM: %ld", &kib) == 1) break;
        fclose(f); *peak += kib;
    }
    return cpu;
}

static int meter(char *pids, char **command) {
    long peak; struct timespec a, b; struct rusage u; int status;
    double before = processes(pids, &peak);
    clock_gettime(CLOCK_MONOTONIC, &a);
    pid_t child = fork();
    if (!child) { int null = open("/dev/null", O_RDWR); dup2(null, 0); dup2(null, 1); execvp(command[0], command); FAIL(command[0]); }
    wait4(child, &status, 0, &u);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double after = processes(pids, &peak);
    printf("%.4f\t%.3f\t%.3f\t%ld\t%ld\t%d\n", b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) * 1e-9,
        seconds(u.ru_utime) + seconds(u.ru_stime), after - before, peak, u.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    return 0;
}

int main(int count, char **a) {
    if (count == 7 && !strcmp(a[1], "pull")) return pull(a + 2);
    if (count > 3 && !strcmp(a[1], "meter")) return meter(a[2], a + 3);
    fprintf(stderr, "pullfloor pull HOST PORT REPOSITORY TAG DIRECTORY | meter PIDS COMMAND...\n");
    return 2;
}
