/* Looks names up through libc, by any of its APIs, on any number of threads, and in a few rude ways.
 *
 * Owns: the calls and a JSON line that counts their results.
 * Must not know: servers, tracers.
 *
 * All threads exist and are blocked when the ready file appears; the go file releases them at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <resolv.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "workload.h"

enum { MAX_CODES = 16, STACK_BYTES = 256 * 1024, NAME_BYTES = 2048, ANSWER_BYTES = 65536 };

struct outcome {
  const char *code; /* NULL: ok */
  struct sockaddr_storage address;
  socklen_t address_bytes;
};

typedef void api_call(const char *name, struct outcome *outcome);

static struct {
  const char *api, *name, *then_name, *service, *ready_file, *go_file;
  int family, numeric_host, threads, linger, unique, type;
  long count, repeat_delay_us, connect_port, thread_exit_ms, mid_ms, buffer_bytes;
  int do_longjmp, do_exec, do_fork, do_cancel, do_hello;
} options = {.api = "getaddrinfo", .threads = 1, .count = 1, .mid_ms = 200, .buffer_bytes = 1024, .type = ns_t_a};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int arrived, released;

static struct {
  long ok, failed, abandoned, connected, connect_failed;
  struct {
    const char *code;
    long count;
  } codes[MAX_CODES];
  double max_ms, sum_ms;
} totals;

/* The names of errors. */

static const char *gai_name(int code) {
  switch (code) {
    case 0: return NULL;
    case EAI_NONAME: return "EAI_NONAME";
    case EAI_AGAIN: return "EAI_AGAIN";
    case EAI_FAIL: return "EAI_FAIL";
    case EAI_FAMILY: return "EAI_FAMILY";
    case EAI_SERVICE: return "EAI_SERVICE";
    case EAI_MEMORY: return "EAI_MEMORY";
    case EAI_SYSTEM: return "EAI_SYSTEM";
    case EAI_OVERFLOW: return "EAI_OVERFLOW";
    case EAI_BADFLAGS: return "EAI_BADFLAGS";
    case -5: return "EAI_NODATA";
    case -9: return "EAI_ADDRFAMILY";
    default: return "EAI_OTHER";
  }
}

static const char *h_errno_name(int code) {
  switch (code) {
    case HOST_NOT_FOUND: return "HOST_NOT_FOUND";
    case TRY_AGAIN: return "TRY_AGAIN";
    case NO_RECOVERY: return "NO_RECOVERY";
    case NO_DATA: return "NO_DATA";
    default: return "NETDB_INTERNAL";
  }
}

/* The APIs. Each fills in `outcome`. */

static void call_getaddrinfo(const char *name, struct outcome *outcome) {
  struct addrinfo hints = {.ai_family = options.family, .ai_flags = options.numeric_host ? AI_NUMERICHOST : 0};
  struct addrinfo *found = NULL;
  outcome->code = gai_name(getaddrinfo(name, options.service, &hints, &found));
  if (outcome->code) return;
  memcpy(&outcome->address, found->ai_addr, found->ai_addrlen);
  outcome->address_bytes = found->ai_addrlen;
  freeaddrinfo(found);
}

static void call_gethostbyname(const char *name, struct outcome *outcome) {
  if (!gethostbyname(name)) outcome->code = h_errno_name(h_errno);
}

static int family_or_inet(void) { return options.family == AF_UNSPEC ? AF_INET : options.family; }

static void call_gethostbyname2(const char *name, struct outcome *outcome) {
  if (!gethostbyname2(name, family_or_inet())) outcome->code = h_errno_name(h_errno);
}

static void take_address(const char *name, struct sockaddr_storage *address, socklen_t *bytes) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
  memset(address, 0, sizeof *address);
  if (inet_pton(AF_INET, name, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    *bytes = sizeof *v4;
  } else if (inet_pton(AF_INET6, name, &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    *bytes = sizeof *v6;
  } else {
    die(EXIT_USAGE, "%s needs an address as its name, not %s", options.api, name);
  }
}

static const void *raw_address(struct sockaddr_storage *address, socklen_t *bytes) {
  int is_v4 = address->ss_family == AF_INET;
  *bytes = is_v4 ? 4 : 16;
  return is_v4 ? (void *)&((struct sockaddr_in *)address)->sin_addr
               : (void *)&((struct sockaddr_in6 *)address)->sin6_addr;
}

static void call_gethostbyaddr(const char *name, struct outcome *outcome) {
  struct sockaddr_storage address;
  socklen_t bytes;
  take_address(name, &address, &bytes);
  const void *raw = raw_address(&address, &bytes);
  if (!gethostbyaddr(raw, bytes, address.ss_family)) outcome->code = h_errno_name(h_errno);
}

/* One of the _r functions; repeated with a larger buffer as long as it says ERANGE, as all callers do. */
enum reentrant { BY_NAME, BY_NAME2, BY_ADDRESS };

static void call_reentrant(enum reentrant which, const char *name, struct outcome *outcome) {
  struct hostent entry, *result = NULL;
  struct sockaddr_storage address;
  socklen_t bytes = 0;
  const void *raw = NULL;
  if (which == BY_ADDRESS) {
    take_address(name, &address, &bytes);
    raw = raw_address(&address, &bytes);
  }
  int code = ERANGE, h_code = 0;
  for (size_t size = (size_t)options.buffer_bytes; code == ERANGE; size *= 2) {
    char *buffer = malloc(size);
    if (which == BY_NAME) code = gethostbyname_r(name, &entry, buffer, size, &result, &h_code);
    if (which == BY_NAME2)
      code = gethostbyname2_r(name, family_or_inet(), &entry, buffer, size, &result, &h_code);
    if (which == BY_ADDRESS)
      code = gethostbyaddr_r(raw, bytes, address.ss_family, &entry, buffer, size, &result, &h_code);
    free(buffer);
  }
  if (!result) outcome->code = h_errno_name(h_code);
}

static void call_gethostbyname_r(const char *name, struct outcome *outcome) {
  call_reentrant(BY_NAME, name, outcome);
}
static void call_gethostbyname2_r(const char *name, struct outcome *outcome) {
  call_reentrant(BY_NAME2, name, outcome);
}
static void call_gethostbyaddr_r(const char *name, struct outcome *outcome) {
  call_reentrant(BY_ADDRESS, name, outcome);
}

static void call_getnameinfo(const char *name, struct outcome *outcome) {
  struct sockaddr_storage address;
  socklen_t bytes;
  char host[NI_MAXHOST];
  take_address(name, &address, &bytes);
  outcome->code = gai_name(getnameinfo((struct sockaddr *)&address, bytes, host, sizeof host, NULL, 0, NI_NAMEREQD));
}

static void call_res_query(const char *name, struct outcome *outcome) {
  unsigned char *answer = malloc(ANSWER_BYTES);
  if (res_query(name, ns_c_in, options.type, answer, ANSWER_BYTES) < 0) outcome->code = h_errno_name(h_errno);
  free(answer);
}

static void call_res_search(const char *name, struct outcome *outcome) {
  unsigned char *answer = malloc(ANSWER_BYTES);
  if (res_search(name, ns_c_in, options.type, answer, ANSWER_BYTES) < 0) outcome->code = h_errno_name(h_errno);
  free(answer);
}

static void call_res_send(const char *name, struct outcome *outcome) {
  unsigned char query[512], *answer = malloc(ANSWER_BYTES);
  int bytes = res_mkquery(ns_o_query, name, ns_c_in, options.type, NULL, 0, NULL, query, sizeof query);
  if (bytes < 0 || res_send(query, bytes, answer, ANSWER_BYTES) < 0) outcome->code = "TRY_AGAIN";
  free(answer);
}

#ifdef __GLIBC__
/* The functions with a state of the caller's own, and the asynchronous one: glibc only. */

static void call_with_state(int is_search, const char *name, struct outcome *outcome) {
  struct __res_state state;
  unsigned char *answer = malloc(ANSWER_BYTES);
  memset(&state, 0, sizeof state);
  if (res_ninit(&state) != 0) {
    outcome->code = "RES_NINIT";
  } else {
    int bytes = is_search ? res_nsearch(&state, name, ns_c_in, options.type, answer, ANSWER_BYTES)
                          : res_nquery(&state, name, ns_c_in, options.type, answer, ANSWER_BYTES);
    if (bytes < 0) outcome->code = h_errno_name(state.res_h_errno);
    res_nclose(&state);
  }
  free(answer);
}

static void call_res_nquery(const char *name, struct outcome *outcome) { call_with_state(0, name, outcome); }
static void call_res_nsearch(const char *name, struct outcome *outcome) { call_with_state(1, name, outcome); }

static void call_getaddrinfo_a(const char *name, struct outcome *outcome) {
  struct addrinfo hints = {.ai_family = options.family};
  struct gaicb request = {.ar_name = name, .ar_service = options.service, .ar_request = &hints};
  struct gaicb *list[] = {&request};
  int code = getaddrinfo_a(GAI_WAIT, list, 1, NULL);
  outcome->code = gai_name(code ? code : gai_error(&request));
  if (!outcome->code) freeaddrinfo(request.ar_result);
}
#endif

static const struct {
  const char *name;
  api_call *call;
} APIS[] = {
    {"getaddrinfo", call_getaddrinfo},
    {"gethostbyname", call_gethostbyname},
    {"gethostbyname2", call_gethostbyname2},
    {"gethostbyname_r", call_gethostbyname_r},
    {"gethostbyname2_r", call_gethostbyname2_r},
    {"gethostbyaddr", call_gethostbyaddr},
    {"gethostbyaddr_r", call_gethostbyaddr_r},
    {"getnameinfo", call_getnameinfo},
    {"res_query", call_res_query},
    {"res_search", call_res_search},
    {"res_send", call_res_send},
#ifdef __GLIBC__
    {"res_nquery", call_res_nquery},
    {"res_nsearch", call_res_nsearch},
    {"getaddrinfo_a", call_getaddrinfo_a},
#endif
};

static api_call *api_by_name(const char *name) {
  for (size_t i = 0; i < sizeof APIS / sizeof *APIS; i++)
    if (strcmp(APIS[i].name, name) == 0) return APIS[i].call;
  die(EXIT_NOT_POSSIBLE_HERE, "this libc has no %s", name);
}

/* Counting. */

static void count(const struct outcome *outcome, double took_ms) {
  pthread_mutex_lock(&lock);
  totals.sum_ms += took_ms;
  if (took_ms > totals.max_ms) totals.max_ms = took_ms;
  if (!outcome->code) {
    totals.ok++;
  } else {
    totals.failed++;
    int i = 0;
    while (i < MAX_CODES - 1 && totals.codes[i].code && strcmp(totals.codes[i].code, outcome->code) != 0) i++;
    totals.codes[i].code = outcome->code;
    totals.codes[i].count++;
  }
  pthread_mutex_unlock(&lock);
}

static void print_summary(void) {
  printf("{\"ok\":%ld,\"failed\":%ld,\"abandoned\":%ld,\"codes\":{", totals.ok, totals.failed, totals.abandoned);
  for (int i = 0; i < MAX_CODES && totals.codes[i].code; i++)
    printf("%s\"%s\":%ld", i ? "," : "", totals.codes[i].code, totals.codes[i].count);
  printf("},\"max_ms\":%.3f,\"sum_ms\":%.3f,\"connected\":%ld,\"connect_failed\":%ld}\n", totals.max_ms, totals.sum_ms,
         totals.connected, totals.connect_failed);
  fflush(stdout);
}

/* The lookups of one thread. */

/* The beginning of a TLS handshake, which is as far as a server that never answers lets it come. */
static void say_hello(int fd) {
  static const unsigned char hello[] = {0x16, 3, 1, 0, 4, 1, 0, 0, 0};
  char answer[64];
  if (write(fd, hello, sizeof(hello)) == sizeof(hello)) while (read(fd, answer, sizeof(answer)) > 0) continue;
}

static void connect_to(struct outcome *outcome) {
  struct sockaddr *address = (struct sockaddr *)&outcome->address;
  if (address->sa_family == AF_INET) ((struct sockaddr_in *)address)->sin_port = htons((uint16_t)options.connect_port);
  if (address->sa_family == AF_INET6)
    ((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)options.connect_port);
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int failed = connect(fd, address, outcome->address_bytes) != 0;
  pthread_mutex_lock(&lock);
  totals.connected += !failed;
  totals.connect_failed += failed;
  pthread_mutex_unlock(&lock);
  if (options.do_hello && !failed) say_hello(fd);
  close(fd);
}

static void look_up(const char *name) {
  struct outcome outcome = {0};
  uint64_t start_ns = now_ns();
  api_by_name(options.api)(name, &outcome);
  count(&outcome, ms_since(start_ns));
  if (options.connect_port && !outcome.code && outcome.address_bytes) connect_to(&outcome);
}

static void look_up_repeatedly(long thread_number) {
  for (long i = 0; i < options.count; i++) {
    if (options.unique) {
      char name[NAME_BYTES];
      snprintf(name, sizeof name, "t%ld-%ld.%s", thread_number, i, options.name);
      look_up(name);
    } else {
      look_up(options.name);
    }
    pause_us(options.repeat_delay_us);
  }
}

static void *thread_main(void *argument) {
  pthread_mutex_lock(&lock);
  arrived++;
  pthread_cond_broadcast(&changed);
  while (!released) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  look_up_repeatedly((long)(intptr_t)argument);
  return NULL;
}

/* Rude ways out of a lookup. The main thread interrupts the first thread `mid_ms` after the go. */

static sigjmp_buf before_lookup;
static int longjmp_done;

static void leave_by_longjmp(int signal_number) {
  (void)signal_number;
  siglongjmp(before_lookup, 1);
}

static void leave_by_thread_exit(int signal_number) {
  (void)signal_number;
  pthread_exit(NULL);
}

static void *longjmp_main(void *argument) {
  pthread_mutex_lock(&lock);
  arrived++;
  pthread_cond_broadcast(&changed);
  while (!released) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  if (sigsetjmp(before_lookup, 1) == 0)
    look_up_repeatedly((long)(intptr_t)argument);
  else
    totals.abandoned++;
  look_up(options.then_name);
  pthread_mutex_lock(&lock);
  longjmp_done = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  /* The end of this thread would run clean-ups that the jump has left behind (musl): it never ends. */
  while (longjmp_done) pause();
  return NULL;
}

/* exec from a thread that is not the leader: its tid becomes the pid, the others vanish. */
static void *exec_main(void *argument) {
  (void)argument;
  char *arguments[] = {"lookup", "--api", (char *)options.api, "--name", (char *)options.then_name, "--threads", "0", NULL};
  execv("/proc/self/exe", arguments);
  die(1, "cannot exec myself");
}

static int fork_and_look_up(void) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    look_up_repeatedly(0);
    print_summary();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

static void interrupt_first(pthread_t first) {
  pthread_t helper;
  if (options.thread_exit_ms) options.mid_ms = options.thread_exit_ms;
  pause_us(options.mid_ms * 1000);
  if (options.do_longjmp || options.thread_exit_ms) {
    struct sigaction action = {.sa_handler = options.do_longjmp ? leave_by_longjmp : leave_by_thread_exit};
    sigaction(SIGUSR1, &action, NULL);
    pthread_kill(first, SIGUSR1);
  }
  if (options.do_cancel) pthread_cancel(first);
  if (options.thread_exit_ms || options.do_cancel) totals.abandoned++;
  if (options.do_exec) {
    pthread_create(&helper, NULL, exec_main, NULL);
    pthread_join(helper, NULL);
  }
  if (options.do_fork) fork_and_look_up();
}

/* Putting it together. */

static void run(void) {
  pthread_t *threads = calloc((size_t)options.threads + 1, sizeof *threads);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  for (int i = 0; i < options.threads; i++) {
    void *(*body)(void *) = options.do_longjmp && i == 0 ? longjmp_main : thread_main;
    if (pthread_create(&threads[i], &attributes, body, (void *)(intptr_t)i) != 0)
      die(1, "only %d of %d threads could be started", i, options.threads);
  }
  pthread_mutex_lock(&lock);
  while (arrived < options.threads) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);

  ready_then_go(options.ready_file, options.go_file);

  pthread_mutex_lock(&lock);
  released = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  if (options.threads && (options.do_longjmp || options.do_exec || options.do_cancel || options.do_fork ||
                          options.thread_exit_ms))
    interrupt_first(threads[0]);
  else if (options.do_fork)
    fork_and_look_up();
  else if (!options.threads)
    look_up_repeatedly(0);
  for (int i = options.do_longjmp; i < options.threads; i++) pthread_join(threads[i], NULL);
  pthread_mutex_lock(&lock);
  while (options.do_longjmp && !longjmp_done) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static char *from_hex(const char *hex) {
  size_t bytes = strlen(hex) / 2;
  char *text = calloc(bytes + 1, 1);
  for (size_t i = 0; i < bytes; i++) {
    unsigned value;
    if (sscanf(hex + 2 * i, "%2x", &value) != 1) die(EXIT_USAGE, "not hexadecimal: %s", hex);
    text[i] = (char)value;
  }
  return text;
}

static int family_by_name(const char *name) {
  if (strcmp(name, "inet") == 0) return AF_INET;
  if (strcmp(name, "inet6") == 0) return AF_INET6;
  if (strcmp(name, "unspec") == 0) return AF_UNSPEC;
  die(EXIT_USAGE, "no such family: %s", name);
}

static int type_by_name(const char *name) {
  static const struct {
    const char *name;
    int number;
  } types[] = {{"A", 1}, {"PTR", 12}, {"MX", 15}, {"TXT", 16}, {"AAAA", 28}, {"SRV", 33}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strcmp(types[i].name, name) == 0) return types[i].number;
  die(EXIT_USAGE, "no such record type: %s", name);
}

static const char USAGE[] =
    "lookup --name NAME | --name-hex HEX   [--unique: t<thread>-<n>. in front]\n"
    "  --api getaddrinfo|gethostbyname[2][_r]|gethostbyaddr[_r]|getnameinfo|getaddrinfo_a|\n"
    "        res_query|res_search|res_send|res_nquery|res_nsearch\n"
    "  --family inet|inet6|unspec  --service S  --numeric-host  --type A|AAAA|MX|TXT|SRV|PTR  --buffer-bytes N\n"
    "  --threads N (0: the main thread)  --count M  --repeat-delay-us U  --connect PORT [--hello]  --linger\n"
    "  --ready-file F  --go-file F\n"
    "  --mid-ms MS after the go (200), in mid-lookup of the first thread:\n"
    "    --signal-thread-exit-ms MS (pthread_exit in a signal handler)  --cancel  --longjmp  --exec  --fork-child\n"
    "    --then-name NAME: what is looked up after --longjmp or --exec (default: the same)\n"
    "    --fork-child --threads 0: only the child looks up\n";

static void parse(int argc, char **argv) {
  enum { API = 256, NAME, NAME_HEX, THEN, FAMILY, SERVICE, TYPE, THREADS, COUNT, DELAY, READY, GO, CONNECT, EXIT_MS, MID, BUFFER };
  static const struct option known[] = {
      {"api", required_argument, 0, API},
      {"name", required_argument, 0, NAME},
      {"name-hex", required_argument, 0, NAME_HEX},
      {"then-name", required_argument, 0, THEN},
      {"family", required_argument, 0, FAMILY},
      {"service", required_argument, 0, SERVICE},
      {"type", required_argument, 0, TYPE},
      {"threads", required_argument, 0, THREADS},
      {"count", required_argument, 0, COUNT},
      {"repeat-delay-us", required_argument, 0, DELAY},
      {"ready-file", required_argument, 0, READY},
      {"go-file", required_argument, 0, GO},
      {"connect", required_argument, 0, CONNECT},
      {"signal-thread-exit-ms", required_argument, 0, EXIT_MS},
      {"mid-ms", required_argument, 0, MID},
      {"buffer-bytes", required_argument, 0, BUFFER},
      {"numeric-host", no_argument, &options.numeric_host, 1},
      {"unique", no_argument, &options.unique, 1},
      {"linger", no_argument, &options.linger, 1},
      {"cancel", no_argument, &options.do_cancel, 1},
      {"hello", no_argument, &options.do_hello, 1},
      {"longjmp", no_argument, &options.do_longjmp, 1},
      {"exec", no_argument, &options.do_exec, 1},
      {"fork-child", no_argument, &options.do_fork, 1},
      {0, 0, 0, 0},
  };
  int option;
  while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
    switch (option) {
      case 0: break;
      case API: options.api = optarg; break;
      case NAME: options.name = optarg; break;
      case NAME_HEX: options.name = from_hex(optarg); break;
      case THEN: options.then_name = optarg; break;
      case FAMILY: options.family = family_by_name(optarg); break;
      case SERVICE: options.service = optarg; break;
      case TYPE: options.type = type_by_name(optarg); break;
      case THREADS: options.threads = (int)number(optarg); break;
      case COUNT: options.count = number(optarg); break;
      case DELAY: options.repeat_delay_us = number(optarg); break;
      case READY: options.ready_file = optarg; break;
      case GO: options.go_file = optarg; break;
      case CONNECT: options.connect_port = number(optarg); break;
      case EXIT_MS: options.thread_exit_ms = number(optarg); break;
      case MID: options.mid_ms = number(optarg); break;
      case BUFFER: options.buffer_bytes = number(optarg); break;
      default: die(EXIT_USAGE, "%s", USAGE);
    }
  }
  if (!options.name) die(EXIT_USAGE, "%s", USAGE);
  if (!options.then_name) options.then_name = options.name;
  api_by_name(options.api); /* complain now, not when the test is under way */
}

int main(int argc, char **argv) {
  parse(argc, argv);
  run();
  if (!options.do_fork || options.threads) print_summary();
  while (options.linger) pause();
  return 0;
}
