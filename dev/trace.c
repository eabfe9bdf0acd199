/* Which code of a program do a command and its children run through? Every instruction is stepped over by itself.
 *
 *   trace LOW HIGH PROGRAM ARG...    prints each address from LOW to HIGH (hexadecimal) once, in hexadecimal
 *
 * A child is let go when it executes another program; all are when the command itself ends. dev/layout uses it.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static struct stat own;

static int runs_it(pid_t pid) {
    char path[64];
    struct stat now;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    return stat(path, &now) == 0 && now.st_size == own.st_size && now.st_ino == own.st_ino;
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    unsigned long low = strtoul(argv[1], 0, 16), high = strtoul(argv[2], 0, 16);
    char *seen = high > low ? calloc(high - low, 1) : 0;
    if (!seen || stat(argv[3], &own)) { perror(argv[3]); return 2; }
    pid_t command = fork();
    if (command == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[3], argv + 3);
        _exit(127);
    }
    int status, begun = 0, code = 1;
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
        if (!WIFSTOPPED(status)) {
            if (pid != command) continue;
            code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
            break;
        }
        if (!begun++) ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
        int event = status >> 16, signal = WSTOPSIG(status);
        if (event == PTRACE_EVENT_EXEC && !runs_it(pid)) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            continue;
        }
        unsigned long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0);
        if (at >= low && at < high) seen[at - low] = 1;
        ptrace(PTRACE_SINGLESTEP, pid, 0, event || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal);
    }
    for (unsigned long at = 0; at < high - low; at++)
        if (seen[at]) printf("%lx\n", low + at);
    return code;
}
