/* Speaks DNS by itself, without any resolver: one query at a time by a chosen pair of system calls, or a flood.
 *
 * Owns: building a query, every way to send and receive it, and a JSON line that counts both.
 * Must not know: libc's resolver (it calls none of it), tracers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "workload.h"

enum { MESSAGE_BYTES = 4096, NAME_BYTES = 512, MAX_BATCH = 64, IDS = 65536 };

static struct {
  const char *server, *name, *send, *receive, *ready_file, *go_file;
  int is_tcp, connected, split_prefix, pack, no_read, use_uring, linger, unique, edns_later, batch, type;
  long port, count, timeout_ms, close_after_ms, rate_per_s, window, duration_ms;
} options = {.server = "192.0.2.53", .name = "wire.test", .send = "sendto", .receive = "recvfrom", .port = 53,
             .batch = 1, .type = 1, .count = 1, .timeout_ms = 1000, .close_after_ms = -1, .rate_per_s = -1,
             .window = 256};

static struct {
  long sent, answered, unexpected, timed_out, send_errors;
} totals;

static struct sockaddr_storage server;
static socklen_t server_bytes;
static unsigned char outstanding[IDS];

/* Messages. */

static size_t put_name(unsigned char *to, const char *name) {
  size_t used = 0;
  while (*name) {
    size_t label = strcspn(name, ".");
    to[used++] = (unsigned char)label;
    memcpy(to + used, name, label);
    used += label;
    name += label + (name[label] == '.');
  }
  to[used++] = 0;
  return used;
}

static size_t make_query(unsigned char *to, unsigned id) {
  char name[NAME_BYTES];
  if (options.unique)
    snprintf(name, sizeof name, "n%ld.%s", totals.sent, options.name);
  else
    snprintf(name, sizeof name, "%s", options.name);
  const unsigned char opt[11] = {0, 0, 41, 4, 208}; /* for answers of up to 1,232 bytes */
  unsigned char has_opt = options.edns_later && totals.sent > 0;
  const unsigned char header[12] = {(unsigned char)(id >> 8), (unsigned char)id, 1, 0, 0, 1, 0, 0, 0, 0, 0, has_opt};
  memcpy(to, header, sizeof header);
  size_t used = sizeof header + put_name(to + sizeof header, name);
  const unsigned char question[4] = {(unsigned char)(options.type >> 8), (unsigned char)options.type, 0, 1};
  memcpy(to + used, question, sizeof question);
  used += sizeof question;
  if (!has_opt) return used;
  memcpy(to + used, opt, sizeof opt);
  return used + sizeof opt;
}

static void take_reply(const unsigned char *message, long bytes) {
  unsigned id = bytes >= 2 ? (unsigned)(message[0] << 8 | message[1]) : 0;
  if (bytes >= 12 && (message[2] & 0x80) && outstanding[id]) {
    outstanding[id] = 0;
    totals.answered++;
  } else {
    totals.unexpected++;
  }
}

/* Sockets. */

static void find_server(void) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)&server;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&server;
  uint16_t port = htons((uint16_t)options.port);
  if (inet_pton(AF_INET, options.server, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = port;
    server_bytes = sizeof *v4;
  } else if (inet_pton(AF_INET6, options.server, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = port;
    server_bytes = sizeof *v6;
  } else {
    die(EXIT_USAGE, "not an address: %s", options.server);
  }
}

static int open_socket(void) {
  int fd = socket(server.ss_family, (options.is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
  int buffer_bytes = 4 << 20, on = 1;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
  /* Each write is a segment of its own, and does not wait for the one before to be acknowledged. */
  if (options.is_tcp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if ((options.is_tcp || options.connected) && connect(fd, (struct sockaddr *)&server, server_bytes) != 0)
    die(1, "connect: %s", strerror(errno));
  return fd;
}

static int wait_readable(int fd) {
  struct pollfd wanted = {.fd = fd, .events = POLLIN};
  return poll(&wanted, 1, (int)options.timeout_ms) > 0;
}

/* io_uring by raw system calls: the headers of one libc lack it, so what is needed is spelled out here. */

struct uring_sqe {
  uint8_t opcode, flags;
  uint16_t ioprio;
  int32_t fd;
  uint64_t off, addr;
  uint32_t len, msg_flags;
  uint64_t user_data, rest[3];
};

struct uring_params {
  uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv[3];
  struct {
    uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, resv1;
    uint64_t user_addr;
  } sq;
  struct {
    uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1;
    uint64_t user_addr;
  } cq;
};

struct uring_cqe {
  uint64_t user_data;
  int32_t res;
  uint32_t flags;
};

enum { URING_SENDMSG = 9, URING_RECVMSG = 10, URING_ENTER_GETEVENTS = 1, SYS_URING_SETUP = 425, SYS_URING_ENTER = 426 };

static struct {
  int fd;
  struct uring_params params;
  unsigned char *sq, *cq;
  struct uring_sqe *entries;
} uring;

static void uring_open(void) {
  uring.fd = (int)syscall(SYS_URING_SETUP, 4, &uring.params);
  if (uring.fd < 0) die(EXIT_NOT_POSSIBLE_HERE, "io_uring is not possible here: %s", strerror(errno));
  const struct uring_params *p = &uring.params;
  int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  uring.sq = mmap(NULL, p->sq.array + p->sq_entries * 4, protection, flags, uring.fd, 0);
  uring.cq = mmap(NULL, p->cq.cqes + p->cq_entries * sizeof(struct uring_cqe), protection, flags, uring.fd, 0x8000000);
  uring.entries = mmap(NULL, p->sq_entries * sizeof *uring.entries, protection, flags, uring.fd, 0x10000000);
  if (uring.sq == MAP_FAILED || uring.cq == MAP_FAILED || uring.entries == MAP_FAILED) die(1, "cannot map the ring");
}

/* Submit one operation and wait for it: the result of the system call it stands for. */
static long uring_do(int opcode, int fd, struct msghdr *message) {
  const struct uring_params *p = &uring.params;
  uint32_t *tail = (uint32_t *)(uring.sq + p->sq.tail), mask = *(uint32_t *)(uring.sq + p->sq.ring_mask);
  uint32_t slot = *tail & mask;
  uring.entries[slot] = (struct uring_sqe){.opcode = (uint8_t)opcode, .fd = fd, .addr = (uintptr_t)message, .len = 1};
  ((uint32_t *)(uring.sq + p->sq.array))[slot] = slot;
  __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
  if (syscall(SYS_URING_ENTER, uring.fd, 1, 1, URING_ENTER_GETEVENTS, NULL, 0) < 0) return -errno;
  uint32_t *head = (uint32_t *)(uring.cq + p->cq.head), cq_mask = *(uint32_t *)(uring.cq + p->cq.ring_mask);
  struct uring_cqe *done = (struct uring_cqe *)(uring.cq + p->cq.cqes) + (*head & cq_mask);
  long result = done->res;
  __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
  return result;
}

/* Sending. The bytes in `parts` are one datagram, or one write to a stream. */

static int is_send(const char *name) { return strcmp(options.send, name) == 0; }
static int is_receive(const char *name) { return strcmp(options.receive, name) == 0; }

static long send_parts(int fd, struct iovec *parts, int count) {
  int with_address = !options.is_tcp && !options.connected;
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
  if (with_address) {
    message.msg_name = &server;
    message.msg_namelen = server_bytes;
  }
  if (options.use_uring) return uring_do(URING_SENDMSG, fd, &message);
  if (is_send("sendmsg")) return sendmsg(fd, &message, 0);
  if (is_send("writev")) return writev(fd, parts, count);
  unsigned char joined[2 * MESSAGE_BYTES];
  size_t bytes = 0;
  for (int i = 0; i < count; i++) {
    memcpy(joined + bytes, parts[i].iov_base, parts[i].iov_len);
    bytes += parts[i].iov_len;
  }
  if (is_send("write")) return write(fd, joined, bytes);
  if (is_send("send")) return send(fd, joined, bytes, 0);
  return sendto(fd, joined, bytes, 0, message.msg_name, message.msg_namelen);
}

static void count_sent(unsigned id, long result) {
  if (result < 0) {
    totals.send_errors++;
    return;
  }
  outstanding[id] = 1;
  totals.sent++;
}

static unsigned next_id(void) {
  static unsigned id = 0x1234;
  return id = (id + 1) % IDS;
}

/* The raw system call: musl turns sendmmsg into a loop of sendmsg. */
static void send_batch(int fd) {
  static unsigned char bodies[MAX_BATCH][MESSAGE_BYTES];
  struct mmsghdr messages[MAX_BATCH] = {0};
  struct iovec parts[MAX_BATCH];
  unsigned ids[MAX_BATCH];
  for (int i = 0; i < options.batch; i++) {
    ids[i] = next_id();
    parts[i] = (struct iovec){bodies[i], make_query(bodies[i], ids[i])};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    if (!options.connected) {
      messages[i].msg_hdr.msg_name = &server;
      messages[i].msg_hdr.msg_namelen = server_bytes;
    }
  }
  long sent = syscall(SYS_sendmmsg, fd, messages, options.batch, 0);
  for (int i = 0; i < options.batch; i++) count_sent(ids[i], i < sent ? 0 : -1);
}

static void send_datagram(int fd) {
  unsigned char body[MESSAGE_BYTES];
  unsigned id = next_id();
  struct iovec part = {body, make_query(body, id)};
  count_sent(id, send_parts(fd, &part, 1));
}

static void send_to_stream(int fd) {
  unsigned char bodies[2][MESSAGE_BYTES], prefixes[2][2];
  struct iovec parts[4];
  unsigned ids[2];
  int messages = options.pack ? 2 : 1;
  for (int i = 0; i < messages; i++) {
    ids[i] = next_id();
    size_t bytes = make_query(bodies[i], ids[i]);
    prefixes[i][0] = (unsigned char)(bytes >> 8);
    prefixes[i][1] = (unsigned char)bytes;
    parts[2 * i] = (struct iovec){prefixes[i], 2};
    parts[2 * i + 1] = (struct iovec){bodies[i], bytes};
  }
  long result = 0;
  if (options.split_prefix)
    for (int i = 0; i < 2 * messages && result >= 0; i++) result = send_parts(fd, &parts[i], 1);
  else
    result = send_parts(fd, parts, 2 * messages);
  for (int i = 0; i < messages; i++) count_sent(ids[i], result);
}

static void send_some(int fd) {
  if (options.is_tcp)
    send_to_stream(fd);
  else if (is_send("sendmmsg"))
    send_batch(fd);
  else
    send_datagram(fd);
}

/* Receiving. */

static long receive_into(int fd, unsigned char *body, size_t bytes, int flags) {
  struct sockaddr_storage peer;
  /* The first two bytes apart, so that the scattering calls really scatter. */
  struct iovec parts[2] = {{body, 2}, {body + 2, bytes - 2}};
  struct msghdr message = {.msg_name = &peer, .msg_namelen = sizeof peer, .msg_iov = parts};
  message.msg_iovlen = bytes > 2 ? 2 : 1;
  if (options.use_uring) return uring_do(URING_RECVMSG, fd, &message);
  if (is_receive("read")) return read(fd, body, bytes);
  if (is_receive("readv")) return readv(fd, parts, bytes > 2 ? 2 : 1);
  if (is_receive("recvmsg")) return recvmsg(fd, &message, flags);
  if (is_receive("recv")) return recv(fd, body, bytes, flags);
  socklen_t peer_bytes = sizeof peer;
  return recvfrom(fd, body, bytes, flags, (struct sockaddr *)&peer, &peer_bytes);
}

static long receive_batch(int fd, int flags) {
  static unsigned char bodies[MAX_BATCH][MESSAGE_BYTES];
  struct mmsghdr messages[MAX_BATCH] = {0};
  struct iovec parts[MAX_BATCH];
  for (int i = 0; i < MAX_BATCH; i++) {
    parts[i] = (struct iovec){bodies[i], MESSAGE_BYTES};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  long received = syscall(SYS_recvmmsg, fd, messages, MAX_BATCH, flags | MSG_WAITFORONE, NULL);
  for (long i = 0; i < received; i++) take_reply(bodies[i], messages[i].msg_len);
  return received;
}

static long receive_datagram(int fd, int flags) {
  unsigned char body[MESSAGE_BYTES];
  if (is_receive("recvmmsg")) return receive_batch(fd, flags);
  long bytes = receive_into(fd, body, sizeof body, flags);
  if (bytes >= 0) take_reply(body, bytes);
  return bytes;
}

static int receive_exactly(int fd, unsigned char *to, size_t bytes) {
  while (bytes > 0) {
    if (!wait_readable(fd)) return 0;
    long received = receive_into(fd, to, bytes, 0);
    if (received <= 0) return 0;
    to += received;
    bytes -= (size_t)received;
  }
  return 1;
}

static long receive_from_stream(int fd) {
  unsigned char prefix[2], body[IDS];
  if (!receive_exactly(fd, prefix, 2)) return -1;
  size_t bytes = (size_t)(prefix[0] << 8 | prefix[1]);
  if (!receive_exactly(fd, body, bytes)) return -1;
  take_reply(body, (long)bytes);
  return (long)bytes;
}

/* One query (or batch, or packed pair) after the other. */

static void ask_in_turn(void) {
  int fd = open_socket();
  while (totals.sent + totals.send_errors < options.count) {
    long expected = totals.sent;
    send_some(fd);
    expected = totals.sent - expected;
    if (options.close_after_ms >= 0) {
      pause_us(options.close_after_ms * 1000);
      close(fd);
      fd = open_socket();
      continue;
    }
    long goal = totals.answered + expected;
    while (!options.no_read && totals.answered < goal) {
      long received = options.is_tcp ? receive_from_stream(fd) : wait_readable(fd) ? receive_datagram(fd, 0) : -1;
      if (received < 0) {
        totals.timed_out += goal - totals.answered;
        break;
      }
    }
  }
}

/* As many as the rate allows, with at most `window` unanswered. */

static void flood(void) {
  int fd = open_socket();
  fcntl(fd, F_SETFL, O_NONBLOCK); /* read and readv have no flag for it */
  uint64_t start_ns = now_ns(), last_reply_ns = start_ns;
  long in_flight = 0;
  for (;;) {
    double elapsed_ms = ms_since(start_ns);
    int is_over = options.duration_ms ? elapsed_ms >= (double)options.duration_ms : totals.sent >= options.count;
    if (is_over && (in_flight <= 0 || ms_since(last_reply_ns) > (double)options.timeout_ms)) break;
    long allowed = options.rate_per_s ? (long)(elapsed_ms * (double)options.rate_per_s / 1000) + 1 : totals.sent + options.window;
    if (!options.duration_ms && allowed > options.count) allowed = options.count;
    while (!is_over && in_flight < options.window && totals.sent < allowed) {
      long before = totals.sent;
      send_some(fd);
      in_flight += totals.sent - before;
      if (totals.sent == before) break; /* an error: it is counted, and tried again in the next round */
    }
    long before = totals.answered;
    while (receive_datagram(fd, MSG_DONTWAIT) > 0) {
    }
    long replies = totals.answered - before;
    in_flight -= replies;
    if (replies > 0) {
      last_reply_ns = now_ns();
    } else if (in_flight >= options.window || is_over) {
      struct pollfd wanted = {.fd = fd, .events = POLLIN};
      poll(&wanted, 1, 10);
      if (ms_since(last_reply_ns) > (double)options.timeout_ms) { /* those will not be answered any more */
        totals.timed_out += in_flight;
        in_flight = 0;
        last_reply_ns = now_ns();
        memset(outstanding, 0, sizeof outstanding);
      }
    } else if (options.rate_per_s) {
      pause_us(50);
    }
  }
  totals.timed_out += in_flight > 0 ? in_flight : 0;
}

static const char USAGE[] =
    "wire [--server ADDRESS] [--port P] [--name NAME] [--unique] [--edns-later] [--type NUMBER] [--count N]\n"
    "  --send sendto|send|sendmsg|sendmmsg|write|writev   --batch B (sendmmsg)   --connected\n"
    "  --receive recvfrom|recv|recvmsg|recvmmsg|read|readv   --io-uring (instead of both)\n"
    "  --tcp  --split-prefix (length in a write of its own)  --pack (two messages in one write)\n"
    "  --no-read  --close-after-ms MS  --timeout-ms MS  --linger  --ready-file F  --go-file F\n"
    "  --rate Q (a second; 0: as fast as possible)  --window W  --duration-ms MS (instead of --count): UDP load\n";

static void parse(int argc, char **argv) {
  enum { SERVER = 256, PORT, NAME, TYPE, COUNT, SEND, BATCH, RECEIVE, CLOSE, TIMEOUT, READY, GO, RATE, WINDOW, DURATION };
  static const struct option known[] = {
      {"server", required_argument, 0, SERVER},
      {"port", required_argument, 0, PORT},
      {"name", required_argument, 0, NAME},
      {"type", required_argument, 0, TYPE},
      {"count", required_argument, 0, COUNT},
      {"send", required_argument, 0, SEND},
      {"batch", required_argument, 0, BATCH},
      {"receive", required_argument, 0, RECEIVE},
      {"close-after-ms", required_argument, 0, CLOSE},
      {"timeout-ms", required_argument, 0, TIMEOUT},
      {"ready-file", required_argument, 0, READY},
      {"go-file", required_argument, 0, GO},
      {"rate", required_argument, 0, RATE},
      {"window", required_argument, 0, WINDOW},
      {"duration-ms", required_argument, 0, DURATION},
      {"tcp", no_argument, &options.is_tcp, 1},
      {"connected", no_argument, &options.connected, 1},
      {"split-prefix", no_argument, &options.split_prefix, 1},
      {"pack", no_argument, &options.pack, 1},
      {"no-read", no_argument, &options.no_read, 1},
      {"io-uring", no_argument, &options.use_uring, 1},
      {"linger", no_argument, &options.linger, 1},
      {"unique", no_argument, &options.unique, 1},
      {"edns-later", no_argument, &options.edns_later, 1},
      {0, 0, 0, 0},
  };
  int option;
  while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
    switch (option) {
      case 0: break;
      case SERVER: options.server = optarg; break;
      case PORT: options.port = number(optarg); break;
      case NAME: options.name = optarg; break;
      case TYPE: options.type = (int)number(optarg); break;
      case COUNT: options.count = number(optarg); break;
      case SEND: options.send = optarg; break;
      case BATCH: options.batch = (int)number(optarg); break;
      case RECEIVE: options.receive = optarg; break;
      case CLOSE: options.close_after_ms = number(optarg); break;
      case TIMEOUT: options.timeout_ms = number(optarg); break;
      case READY: options.ready_file = optarg; break;
      case GO: options.go_file = optarg; break;
      case RATE: options.rate_per_s = number(optarg); break;
      case WINDOW: options.window = number(optarg); break;
      case DURATION: options.duration_ms = number(optarg); break;
      default: die(EXIT_USAGE, "%s", USAGE);
    }
  }
  int needs_connection = is_send("write") || is_send("writev") || is_send("send");
  if (needs_connection) options.connected = 1;
  if (options.batch < 1 || options.batch > MAX_BATCH) die(EXIT_USAGE, "--batch is 1 to %d", MAX_BATCH);
  if (strlen(options.name) > 255) die(EXIT_USAGE, "the name is too long");
}

int main(int argc, char **argv) {
  parse(argc, argv);
  find_server();
  if (options.use_uring) uring_open();
  ready_then_go(options.ready_file, options.go_file);
  uint64_t start_ns = now_ns();
  if (options.rate_per_s >= 0)
    flood();
  else
    ask_in_turn();
  double elapsed_ms = ms_since(start_ns);
  printf("{\"sent\":%ld,\"answered\":%ld,\"unexpected\":%ld,\"timed_out\":%ld,\"send_errors\":%ld,\"elapsed_ms\":%.3f,"
         "\"answered_per_s\":%.0f}\n", totals.sent, totals.answered, totals.unexpected, totals.timed_out,
         totals.send_errors, elapsed_ms, (double)totals.answered / (elapsed_ms / 1000));
  fflush(stdout);
  while (options.linger) pause();
  return 0;
}
