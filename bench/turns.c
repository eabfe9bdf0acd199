// Times commands in turns: one run of each, then the next round, so that all meet the same machine. What one leaves to the
// kernel (a network namespace that is taken apart, say) falls on all alike.
//
//   turns ROUNDS REFERENCE NAME COMMAND [NAME COMMAND ...]
//
// A command is words parted by spaces; " ;; " parts commands that are run one after the other and timed together. Their
// streams are /dev/null. Prints medians, shortest, longest, and what REFERENCE takes of each median. All must succeed.
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

enum { WARM_UP = 5, WORDS = 64 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double run(char *const words[], const posix_spawn_file_actions_t *streams) {
  double begun = now();
  pid_t pid;
  int status, e = posix_spawn(&pid, words[0], streams, NULL, words, environ);
  if (e) { fprintf(stderr, "%s: %s\n", words[0], strerror(e)); exit(1); }
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  double spent = now() - begun;
  if (status) { fprintf(stderr, "%s %s: status %x\n", words[0], words[1] ? words[1] : "", status); exit(1); }
  return spent;
}

// One round of a command line, in milliseconds.
static double turn(const char *line, const posix_spawn_file_actions_t *streams) {
  char *copy = strdup(line), *rest = copy, *word, *words[WORDS + 1];
  double spent = 0;
  int count = 0;
  while ((word = strsep(&rest, " "))) {
    if (!*word) continue;
    if (strcmp(word, ";;") && count < WORDS) { words[count++] = word; continue; }
    words[count] = NULL;
    spent += run(words, streams);
    count = 0;
  }
  words[count] = NULL;
  spent += run(words, streams);
  free(copy);
  return spent;
}

int main(int argc, char **argv) {
  int rounds = argc > 4 ? atoi(argv[1]) : 0, commands = (argc - 3) / 2;
  if (rounds < 1 || argc % 2 == 0) { fprintf(stderr, "turns ROUNDS REFERENCE NAME COMMAND ...\n"); return 2; }
  posix_spawn_file_actions_t streams;
  posix_spawn_file_actions_init(&streams);
  for (int fd = 0; fd < 3; fd++) posix_spawn_file_actions_addopen(&streams, fd, "/dev/null", O_RDWR, 0);
  double *times = calloc((size_t)rounds * commands, sizeof *times);
  for (int round = -WARM_UP; round < rounds; round++)
    for (int i = 0; i < commands; i++) {
      double spent = turn(argv[4 + 2 * i], &streams);
      if (round >= 0) times[i * rounds + round] = spent;
    }
  double reference = 0;
  for (int i = 0; i < commands; i++) {
    double *own = times + i * rounds;
    qsort(own, rounds, sizeof *own, by_size);
    if (!strcmp(argv[3 + 2 * i], argv[2])) reference = (own[(rounds - 1) / 2] + own[rounds / 2]) / 2;
  }
  printf("%-10s %10s %8s %8s  %s takes of it\n", "what", "median ms", "min ms", "max ms", argv[2]);
  for (int i = 0; i < commands; i++) {
    double *own = times + i * rounds, median = (own[(rounds - 1) / 2] + own[rounds / 2]) / 2;
    printf("%-10s %10.2f %8.2f %8.2f  %.2f\n", argv[3 + 2 * i], median, own[0], own[rounds - 1], reference / median);
  }
}
