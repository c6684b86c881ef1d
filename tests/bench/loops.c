/* Calls one thing very often and says what one call takes: the program whose calls the tracers make dearer.
 *
 * Owns: the loops, and the clock around them.
 * Must not know: tracers, ratios, budgets.
 *
 * Reads lines "KIND COUNT" from stdin; after each it prints one line: nanoseconds a call, the median of BATCHES
 * equal parts, so that being preempted once does not count. It lives until stdin ends, so a tracer may come and go.
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BATCHES = 21, NAME_BYTES = 32, MESSAGE_BYTES = 64 };

static int pipe_fds[2], stream_fds[2], pair_fds[2], tcp_fds[2], epoll_fd;
static char message[MESSAGE_BYTES];

static void look_up(void) {
  struct addrinfo hints = {.ai_family = AF_INET, .ai_flags = AI_NUMERICHOST}, *found = NULL;
  if (getaddrinfo("192.0.2.1", NULL, &hints, &found) != 0) exit(1);
  freeaddrinfo(found);
}

static void wait_epoll(void) {
  struct epoll_event event;
  if (syscall(SYS_epoll_pwait, epoll_fd, &event, 1, 0, NULL, 8) != 1) exit(1);
}

static void wait_poll(void) {
  struct pollfd wanted = {.fd = pipe_fds[0], .events = POLLIN};
  struct timespec none = {0, 0};
  if (ppoll(&wanted, 1, &none, NULL) != 1) exit(1);
}

#ifdef SYS_epoll_wait
static void wait_epoll_old(void) {
  struct epoll_event event;
  if (syscall(SYS_epoll_wait, epoll_fd, &event, 1, 0) != 1) exit(1);
}

static void wait_poll_old(void) {
  struct pollfd wanted = {.fd = pipe_fds[0], .events = POLLIN};
  if (syscall(SYS_poll, &wanted, 1, 0) != 1) exit(1);
}
#else
#define wait_epoll_old wait_epoll
#define wait_poll_old wait_poll
#endif

static void send_and_receive(void) {
  if (sendto(pair_fds[0], message, sizeof message, 0, NULL, 0) != MESSAGE_BYTES) exit(1);
  if (recvfrom(pair_fds[1], message, sizeof message, 0, NULL, NULL) != MESSAGE_BYTES) exit(1);
}

static void send_and_receive_tcp(void) {
  if (sendto(tcp_fds[0], message, sizeof message, 0, NULL, 0) != MESSAGE_BYTES) exit(1);
  if (recvfrom(tcp_fds[1], message, sizeof message, MSG_WAITALL, NULL, NULL) != MESSAGE_BYTES) exit(1);
}

static void write_and_read(void) {
  if (write(stream_fds[1], message, sizeof message) != MESSAGE_BYTES) exit(1);
  if (read(stream_fds[0], message, sizeof message) != MESSAGE_BYTES) exit(1);
}

static const struct {
  const char *kind;
  void (*call)(void);
} LOOPS[] = {
    {"lookup", look_up},
    {"epoll_wait", wait_epoll_old},
    {"epoll_pwait", wait_epoll},
    {"poll", wait_poll_old},
    {"ppoll", wait_poll},
    {"send_recv", send_and_receive},
    {"tcp_send_recv", send_and_receive_tcp},
    {"write_read", write_and_read},
};

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *left, const void *right) {
  double difference = *(const double *)left - *(const double *)right;
  return (difference > 0) - (difference < 0);
}

static double ns_per_call(void (*call)(void), long count) {
  double took[BATCHES];
  long in_batch = count / BATCHES + 1;
  for (int batch = 0; batch < BATCHES; batch++) {
    double started = now_ns();
    for (long i = 0; i < in_batch; i++) call();
    took[batch] = (now_ns() - started) / (double)in_batch;
  }
  qsort(took, BATCHES, sizeof *took, by_value);
  return took[BATCHES / 2];
}

/* Two ends of a TCP connection over loopback. */
static int connect_over_tcp(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0), no_delay = 1;
  if (bind(listener, (struct sockaddr *)&address, bytes) != 0 || listen(listener, 1) != 0) return -1;
  getsockname(listener, (struct sockaddr *)&address, &bytes);
  tcp_fds[0] = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(tcp_fds[0], (struct sockaddr *)&address, bytes) != 0) return -1;
  tcp_fds[1] = accept(listener, NULL, NULL);
  setsockopt(tcp_fds[0], IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof no_delay);
  return tcp_fds[1];
}

int main(void) {
  if (connect_over_tcp() < 0) return 1;
  if (pipe(pipe_fds) != 0 || pipe(stream_fds) != 0 || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair_fds) != 0) return 1;
  if (write(pipe_fds[1], "x", 1) != 1) return 1; /* so that every wait returns at once */
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event wanted = {.events = EPOLLIN};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pipe_fds[0], &wanted);

  char kind[NAME_BYTES];
  long count;
  while (scanf("%31s %ld", kind, &count) == 2) {
    double result = -1;
    for (size_t i = 0; i < sizeof LOOPS / sizeof *LOOPS; i++)
      if (strcmp(LOOPS[i].kind, kind) == 0) result = ns_per_call(LOOPS[i].call, count);
    printf("%.1f\n", result);
    fflush(stdout);
  }
  return 0;
}
