/* Waits for events in loops: epoll_wait and its kin, poll, select, each by its own system call.
 *
 * Owns: the loops and a JSON line with how often they came back, and with what.
 * Must not know: DNS, tracers.
 *
 * Raw system calls where a libc has no wrapper, or quietly uses another call (musl's epoll_wait is epoll_pwait,
 * glibc's poll is poll on amd64 and ppoll on arm64). A call this kernel or this machine lacks ends with code 3.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include "workload.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum { EVENTS = 8, SIGNAL_SET_BYTES = 8 };

static struct {
  const char *call, *ready_file, *go_file;
  int is_ready, linger;
  long count, timeout_ms, busy_ms;
} options = {.call = "epoll_wait", .count = 1, .timeout_ms = 0};

static int pipe_fds[2], epoll_fd;

/* The kernel's own layout of a timespec, whatever time_t a libc has. */
struct kernel_timespec {
  int64_t seconds, nanoseconds;
};

static struct kernel_timespec timeout_from_ms(void) {
  return (struct kernel_timespec){options.timeout_ms / 1000, options.timeout_ms % 1000 * 1000000};
}

/* Each waits once for the read end of the pipe; the result is that of the call. */

#ifdef SYS_epoll_wait
static long wait_epoll_wait(void) {
  struct epoll_event events[EVENTS];
  return syscall(SYS_epoll_wait, epoll_fd, events, EVENTS, (int)options.timeout_ms);
}
#endif

static long wait_epoll_pwait(void) {
  struct epoll_event events[EVENTS];
  return syscall(SYS_epoll_pwait, epoll_fd, events, EVENTS, (int)options.timeout_ms, NULL, SIGNAL_SET_BYTES);
}

static long wait_epoll_pwait2(void) {
  struct epoll_event events[EVENTS];
  struct kernel_timespec timeout = timeout_from_ms();
  void *for_ever = options.timeout_ms < 0 ? NULL : &timeout;
  return syscall(SYS_epoll_pwait2, epoll_fd, events, EVENTS, for_ever, NULL, SIGNAL_SET_BYTES);
}

#ifdef SYS_poll
static long wait_poll(void) {
  struct pollfd wanted = {.fd = pipe_fds[0], .events = POLLIN};
  return syscall(SYS_poll, &wanted, 1, (int)options.timeout_ms);
}
#endif

static long wait_ppoll(void) {
  struct pollfd wanted = {.fd = pipe_fds[0], .events = POLLIN};
  struct kernel_timespec timeout = timeout_from_ms();
  return syscall(SYS_ppoll, &wanted, 1, options.timeout_ms < 0 ? NULL : &timeout, NULL, SIGNAL_SET_BYTES);
}

#ifdef SYS_select
static long wait_select(void) {
  fd_set wanted;
  FD_ZERO(&wanted);
  FD_SET(pipe_fds[0], &wanted);
  struct kernel_timespec timeout = {options.timeout_ms / 1000, options.timeout_ms % 1000 * 1000}; /* a timeval */
  return syscall(SYS_select, pipe_fds[0] + 1, &wanted, NULL, NULL, options.timeout_ms < 0 ? NULL : &timeout);
}
#endif

static long wait_pselect6(void) {
  fd_set wanted;
  FD_ZERO(&wanted);
  FD_SET(pipe_fds[0], &wanted);
  struct kernel_timespec timeout = timeout_from_ms();
  void *for_ever = options.timeout_ms < 0 ? NULL : &timeout;
  return syscall(SYS_pselect6, pipe_fds[0] + 1, &wanted, NULL, NULL, for_ever, NULL);
}

static const struct {
  const char *name;
  long (*wait)(void);
} CALLS[] = {
#ifdef SYS_epoll_wait
    {"epoll_wait", wait_epoll_wait},
#endif
    {"epoll_pwait", wait_epoll_pwait},
    {"epoll_pwait2", wait_epoll_pwait2},
#ifdef SYS_poll
    {"poll", wait_poll},
#endif
    {"ppoll", wait_ppoll},
#ifdef SYS_select
    {"select", wait_select},
#endif
    {"pselect6", wait_pselect6},
};

/* Something else than waiting, as a callback of an event loop would do: use the processor. */
static void be_busy(void) {
  uint64_t start_ns = now_ns();
  while (ms_since(start_ns) < (double)options.busy_ms) {
  }
}

static const char USAGE[] =
    "waiter --call epoll_wait|epoll_pwait|epoll_pwait2|poll|ppoll|select|pselect6\n"
    "  --count M  --timeout-ms MS (-1: for ever)  --is-ready (the pipe holds a byte that nobody reads)\n"
    "  --busy-ms MS (between two waits)  --linger  --ready-file F  --go-file F\n";

static void parse(int argc, char **argv) {
  enum { CALL = 256, COUNT, TIMEOUT, BUSY, READY, GO };
  static const struct option known[] = {
      {"call", required_argument, 0, CALL},
      {"count", required_argument, 0, COUNT},
      {"timeout-ms", required_argument, 0, TIMEOUT},
      {"busy-ms", required_argument, 0, BUSY},
      {"ready-file", required_argument, 0, READY},
      {"go-file", required_argument, 0, GO},
      {"is-ready", no_argument, &options.is_ready, 1},
      {"linger", no_argument, &options.linger, 1},
      {0, 0, 0, 0},
  };
  int option;
  while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
    switch (option) {
      case 0: break;
      case CALL: options.call = optarg; break;
      case COUNT: options.count = number(optarg); break;
      case TIMEOUT: options.timeout_ms = number(optarg); break;
      case BUSY: options.busy_ms = number(optarg); break;
      case READY: options.ready_file = optarg; break;
      case GO: options.go_file = optarg; break;
      default: die(EXIT_USAGE, "%s", USAGE);
    }
  }
}

int main(int argc, char **argv) {
  parse(argc, argv);
  long (*wait)(void) = NULL;
  for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
    if (strcmp(CALLS[i].name, options.call) == 0) wait = CALLS[i].wait;
  if (!wait) die(EXIT_NOT_POSSIBLE_HERE, "this machine has no %s", options.call);
  if (pipe(pipe_fds) != 0) die(1, "pipe: %s", strerror(errno));
  if (options.is_ready && write(pipe_fds[1], "x", 1) != 1) die(1, "write: %s", strerror(errno));
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event wanted = {.events = EPOLLIN};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pipe_fds[0], &wanted);

  ready_then_go(options.ready_file, options.go_file);
  long with_events = 0, timed_out = 0, failed = 0;
  uint64_t start_ns = now_ns();
  for (long i = 0; i < options.count; i++) {
    long result = wait();
    if (result < 0 && errno == ENOSYS) die(EXIT_NOT_POSSIBLE_HERE, "this kernel has no %s", options.call);
    with_events += result > 0;
    timed_out += result == 0;
    failed += result < 0;
    if (options.busy_ms) be_busy();
  }
  double elapsed_ms = ms_since(start_ns);
  printf("{\"waits\":%ld,\"with_events\":%ld,\"timed_out\":%ld,\"failed\":%ld,\"elapsed_ms\":%.3f,\"ns_per_wait\":%.1f}\n",
         options.count, with_events, timed_out, failed, elapsed_ms, elapsed_ms * 1e6 / (double)options.count);
  fflush(stdout);
  while (options.linger) pause();
  return 0;
}
