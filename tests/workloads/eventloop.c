/* An event loop that asks a DNS server itself and then, for a while, does something else than read the answer.
 *
 * Owns: the loop by epoll, poll or select, the question, what keeps the thread away, and a JSON line at the end.
 * Must not know: tracers, causes.
 *
 * `--loop none` makes no loop: it calls getaddrinfo, and a signal handler keeps the thread away while it waits.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "workload.h"

enum { MESSAGE_BYTES = 512, DNS_PORT = 53, TURN_MS = 10, ALARM_MS = 40 };

static struct {
  const char *loop, *server, *name, *away, *ready_file, *go_file;
  long away_ms, queries;
} options = {.loop = "epoll", .server = "192.0.2.53", .name = "www.lab.test", .away = "busy", .queries = 1};

static int epoll_fd, pipe_fds[2], dns_fd;
static volatile unsigned long spun;

static void be_away(void) {
  uint64_t start_ns = now_ns();
  if (strcmp(options.away, "sleep") == 0) {
    pause_us(options.away_ms * 1000);
  } else if (strcmp(options.away, "lock") == 0) {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += options.away_ms / 1000;
    until.tv_nsec += options.away_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&lock);
    pthread_mutex_timedlock(&lock, &until);
  } else if (strcmp(options.away, "stop") == 0) {
    pid_t self = getpid();
    if (fork() == 0) {
      pause_us(options.away_ms * 1000);
      kill(self, SIGCONT);
      _exit(0);
    }
    raise(SIGSTOP);
    wait(NULL);
  }
  while (ms_since(start_ns) < (double)options.away_ms) spun++;
}

static void on_alarm(int number) {
  (void)number;
  be_away();
}

/* One turn of the loop: whether the DNS socket can be read. */
static int turn(void) {
  if (strcmp(options.loop, "epoll") == 0) {
    struct epoll_event events[4];
    int count = epoll_wait(epoll_fd, events, 4, TURN_MS), found = 0;
    for (int i = 0; i < count; i++) found |= events[i].data.fd == dns_fd;
    return found;
  }
  if (strcmp(options.loop, "poll") == 0) {
    static struct pollfd wanted[2];
    wanted[0] = (struct pollfd){.fd = pipe_fds[0], .events = POLLIN};
    wanted[1] = (struct pollfd){.fd = dns_fd, .events = POLLIN};
    return poll(wanted, 2, TURN_MS) > 0 && wanted[1].revents;
  }
  fd_set wanted;
  FD_ZERO(&wanted);
  FD_SET(pipe_fds[0], &wanted);
  FD_SET(dns_fd, &wanted);
  struct timeval timeout = {0, TURN_MS * 1000};
  return select(dns_fd + 1, &wanted, NULL, NULL, &timeout) > 0 && FD_ISSET(dns_fd, &wanted);
}

/* A question for an A record. */
static size_t write_question(uint8_t *message, uint16_t id) {
  uint8_t *at = message;
  uint8_t head[12] = {id >> 8, id & 255, 1, 0, 0, 1};
  memcpy(at, head, sizeof head);
  at += sizeof head;
  for (const char *label = options.name; *label;) {
    size_t bytes = strcspn(label, ".");
    *at++ = (uint8_t)bytes;
    memcpy(at, label, bytes);
    at += bytes;
    label += bytes + (label[bytes] == '.');
  }
  static const uint8_t tail[] = {0, 0, 1, 0, 1};
  memcpy(at, tail, sizeof tail);
  return (size_t)(at - message) + sizeof tail;
}

static void watch(int fd) {
  struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &wanted) != 0) die(1, "epoll_ctl: %s", strerror(errno));
}

/* Two pipes that stay silent; the second one's place is taken by the DNS socket later. */
static void set_up(void) {
  int other_fds[2];
  if (pipe(pipe_fds) != 0 || pipe(other_fds) != 0) die(1, "pipe: %s", strerror(errno));
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  dns_fd = other_fds[0];
  watch(pipe_fds[0]);
  watch(dns_fd);
}

static void open_dns_socket(void) {
  epoll_ctl(epoll_fd, EPOLL_CTL_DEL, dns_fd, NULL);
  close(dns_fd);
  dns_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(DNS_PORT)};
  inet_pton(AF_INET, options.server, &server.sin_addr);
  if (connect(dns_fd, (struct sockaddr *)&server, sizeof server) != 0) die(1, "connect: %s", strerror(errno));
  watch(dns_fd);
}

static void run_loop(void) {
  set_up();
  ready_then_go(options.ready_file, NULL);
  while (options.go_file && access(options.go_file, F_OK) != 0) turn();
  for (long i = 0; i < 3; i++) turn(); /* whoever began to watch meanwhile knows it as a loop */
  open_dns_socket();
  uint8_t message[MESSAGE_BYTES];
  uint64_t start_ns = now_ns();
  long answered = 0;
  for (long i = 0; i < options.queries; i++) {
    size_t bytes = write_question(message, (uint16_t)(7000 + i));
    if (send(dns_fd, message, bytes, 0) != (ssize_t)bytes) die(1, "send: %s", strerror(errno));
    if (i + 1 < options.queries) continue;
    be_away();
  }
  while (answered < options.queries && ms_since(start_ns) < 20000)
    if (turn())
      while (recv(dns_fd, message, sizeof message, 0) > 0) answered++;
  printf("{\"answered\":%ld,\"elapsed_ms\":%.3f}\n", answered, ms_since(start_ns));
}

static void run_call(void) {
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  ready_then_go(options.ready_file, options.go_file);
  struct itimerval soon = {.it_value = {0, ALARM_MS * 1000}};
  setitimer(ITIMER_REAL, &soon, NULL);
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
  uint64_t start_ns = now_ns();
  int code = getaddrinfo(options.name, NULL, &hints, &found);
  printf("{\"answered\":%d,\"elapsed_ms\":%.3f}\n", code == 0, ms_since(start_ns));
  if (found) freeaddrinfo(found);
}

int main(int argc, char **argv) {
  enum { LOOP = 256, SERVER, NAME, AWAY, AWAY_MS, QUERIES, READY, GO };
  static const struct option known[] = {
      {"loop", required_argument, 0, LOOP},
      {"server", required_argument, 0, SERVER},
      {"name", required_argument, 0, NAME},
      {"away", required_argument, 0, AWAY},
      {"away-ms", required_argument, 0, AWAY_MS},
      {"queries", required_argument, 0, QUERIES},
      {"ready-file", required_argument, 0, READY},
      {"go-file", required_argument, 0, GO},
      {0, 0, 0, 0},
  };
  int option;
  while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
    switch (option) {
      case LOOP: options.loop = optarg; break;
      case SERVER: options.server = optarg; break;
      case NAME: options.name = optarg; break;
      case AWAY: options.away = optarg; break;
      case AWAY_MS: options.away_ms = number(optarg); break;
      case QUERIES: options.queries = number(optarg); break;
      case READY: options.ready_file = optarg; break;
      case GO: options.go_file = optarg; break;
      default: die(EXIT_USAGE, "eventloop --loop epoll|poll|select|none --away busy|sleep|lock|stop --away-ms MS\n");
    }
  }
  if (strcmp(options.loop, "none") == 0)
    run_call();
  else
    run_loop();
  return 0;
}
