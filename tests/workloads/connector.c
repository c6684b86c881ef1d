/* Connects: TCP, UDP or AF_UNIX; blocking or not; one after the other or side by side; to the end or half-way.
 *
 * Owns: the connects and a JSON line that counts how they ended.
 * Must not know: DNS, tracers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "workload.h"

enum { MAX_CODES = 16, STACK_BYTES = 64 * 1024 };

static struct {
  const char *address, *unix_path, *ready_file, *go_file;
  int is_udp, non_blocking, parallel, wait_to_end, linger, send_byte;
  long port, count, close_after_ms, timeout_ms, repeat_delay_us;
} options = {.address = "127.0.0.1", .port = 80, .count = 1, .close_after_ms = -1, .timeout_ms = -1};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long arrived;
static int released;

static struct {
  long ok, failed, in_progress, closed_midway, timed_out;
  struct {
    int code;
    long count;
  } codes[MAX_CODES];
  double max_ms;
} totals;

static struct sockaddr_storage target;
static socklen_t target_bytes;

static void find_target(void) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)&target;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&target;
  struct sockaddr_un *local = (struct sockaddr_un *)&target;
  if (options.unix_path) {
    if (strlen(options.unix_path) >= sizeof local->sun_path) die(EXIT_USAGE, "the path is too long");
    local->sun_family = AF_UNIX;
    strcpy(local->sun_path, options.unix_path);
    if (local->sun_path[0] == '@') local->sun_path[0] = '\0'; /* the abstract namespace */
    target_bytes = (socklen_t)(sizeof local->sun_family + strlen(options.unix_path));
  } else if (inet_pton(AF_INET, options.address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)options.port);
    target_bytes = sizeof *v4;
  } else if (inet_pton(AF_INET6, options.address, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)options.port);
    target_bytes = sizeof *v6;
  } else {
    die(EXIT_USAGE, "not an address: %s", options.address);
  }
}

/* Counting. `code` is 0 or an errno. */

static void count_end(int code, uint64_t start_ns) {
  double took_ms = ms_since(start_ns);
  pthread_mutex_lock(&lock);
  if (took_ms > totals.max_ms) totals.max_ms = took_ms;
  if (code == 0) {
    totals.ok++;
  } else {
    totals.failed++;
    int i = 0;
    while (i < MAX_CODES - 1 && totals.codes[i].code && totals.codes[i].code != code) i++;
    totals.codes[i].code = code;
    totals.codes[i].count++;
  }
  pthread_mutex_unlock(&lock);
}

static void count_one(long *counter) {
  pthread_mutex_lock(&lock);
  (*counter)++;
  pthread_mutex_unlock(&lock);
}

static const char *errno_name(int code) {
  switch (code) {
    case ECONNREFUSED: return "ECONNREFUSED";
    case ENETUNREACH: return "ENETUNREACH";
    case EHOSTUNREACH: return "EHOSTUNREACH";
    case ETIMEDOUT: return "ETIMEDOUT";
    case EINVAL: return "EINVAL";
    case EACCES: return "EACCES";
    case EPERM: return "EPERM";
    case ENOENT: return "ENOENT";
    case EAGAIN: return "EAGAIN";
    case ECONNRESET: return "ECONNRESET";
    case EMFILE: return "EMFILE";
    case EINTR: return "EINTR";
    default: return strerror(code);
  }
}

/* One connect. */

/* A non-blocking connect: wait for its end, or leave it half-way. */
static void follow(int fd, uint64_t start_ns) {
  if (options.close_after_ms >= 0) {
    pause_us(options.close_after_ms * 1000);
    count_one(&totals.closed_midway);
  } else if (options.wait_to_end) {
    struct pollfd wanted = {.fd = fd, .events = POLLOUT};
    if (poll(&wanted, 1, (int)options.timeout_ms) == 0) {
      count_one(&totals.timed_out);
      return;
    }
    int code = 0;
    socklen_t bytes = sizeof code;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &bytes);
    count_end(code, start_ns);
  } else {
    count_one(&totals.in_progress);
  }
}

static void connect_once(void) {
  int type = (options.is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC | (options.non_blocking ? SOCK_NONBLOCK : 0);
  uint64_t start_ns = now_ns();
  int fd = socket(target.ss_family, type, 0);
  if (fd < 0) {
    count_end(errno, start_ns);
    return;
  }
  int result = connect(fd, (struct sockaddr *)&target, target_bytes);
  if (result != 0 && errno == EINPROGRESS) {
    follow(fd, start_ns);
  } else {
    count_end(result ? errno : 0, start_ns);
    if (options.send_byte && result == 0) send(fd, "x", 1, MSG_NOSIGNAL);
  }
  if (!options.linger) close(fd); /* a lingering program keeps its sockets as they are */
}

static void *thread_main(void *unused) {
  (void)unused;
  pthread_mutex_lock(&lock);
  arrived++;
  pthread_cond_broadcast(&changed);
  while (!released) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  connect_once();
  return NULL;
}

static void print_summary(void) {
  printf("{\"ok\":%ld,\"failed\":%ld,\"in_progress\":%ld,\"closed_midway\":%ld,\"timed_out\":%ld,\"codes\":{", totals.ok,
         totals.failed, totals.in_progress, totals.closed_midway, totals.timed_out);
  for (int i = 0; i < MAX_CODES && totals.codes[i].code; i++)
    printf("%s\"%s\":%ld", i ? "," : "", errno_name(totals.codes[i].code), totals.codes[i].count);
  printf("},\"max_ms\":%.3f}\n", totals.max_ms);
  fflush(stdout);
}

static void run_parallel(void) {
  pthread_t *threads = calloc((size_t)options.count, sizeof *threads);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  for (long i = 0; i < options.count; i++)
    if (pthread_create(&threads[i], &attributes, thread_main, NULL) != 0) die(1, "only %ld threads", i);
  pthread_mutex_lock(&lock);
  while (arrived < options.count) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  ready_then_go(options.ready_file, options.go_file);
  pthread_mutex_lock(&lock);
  released = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  for (long i = 0; i < options.count; i++) pthread_join(threads[i], NULL);
}

static const char USAGE[] =
    "connector [--address ADDRESS --port P | --unix PATH (@NAME: abstract)] [--udp] [--count N] [--parallel]\n"
    "  --non-blocking [--wait (poll to the end) [--timeout-ms MS] | --close-after-ms MS]\n"
    "  --send-byte  --repeat-delay-us U  --linger (keeps the sockets)  --ready-file F  --go-file F\n";

static void parse(int argc, char **argv) {
  enum { ADDRESS = 256, PORT, UNIX, COUNT, CLOSE, TIMEOUT, DELAY, READY, GO };
  static const struct option known[] = {
      {"address", required_argument, 0, ADDRESS},
      {"port", required_argument, 0, PORT},
      {"unix", required_argument, 0, UNIX},
      {"count", required_argument, 0, COUNT},
      {"close-after-ms", required_argument, 0, CLOSE},
      {"timeout-ms", required_argument, 0, TIMEOUT},
      {"repeat-delay-us", required_argument, 0, DELAY},
      {"ready-file", required_argument, 0, READY},
      {"go-file", required_argument, 0, GO},
      {"udp", no_argument, &options.is_udp, 1},
      {"non-blocking", no_argument, &options.non_blocking, 1},
      {"parallel", no_argument, &options.parallel, 1},
      {"wait", no_argument, &options.wait_to_end, 1},
      {"send-byte", no_argument, &options.send_byte, 1},
      {"linger", no_argument, &options.linger, 1},
      {0, 0, 0, 0},
  };
  int option;
  while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
    switch (option) {
      case 0: break;
      case ADDRESS: options.address = optarg; break;
      case PORT: options.port = number(optarg); break;
      case UNIX: options.unix_path = optarg; break;
      case COUNT: options.count = number(optarg); break;
      case CLOSE: options.close_after_ms = number(optarg); break;
      case TIMEOUT: options.timeout_ms = number(optarg); break;
      case DELAY: options.repeat_delay_us = number(optarg); break;
      case READY: options.ready_file = optarg; break;
      case GO: options.go_file = optarg; break;
      default: die(EXIT_USAGE, "%s", USAGE);
    }
  }
}

int main(int argc, char **argv) {
  parse(argc, argv);
  find_target();
  if (options.parallel) {
    run_parallel();
  } else {
    ready_then_go(options.ready_file, options.go_file);
    for (long i = 0; i < options.count; i++) {
      connect_once();
      pause_us(options.repeat_delay_us);
    }
  }
  print_summary();
  while (options.linger) pause();
  return 0;
}
