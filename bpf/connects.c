/* SPDX-License-Identifier: GPL-2.0 */
/* Connects: from the system call to their end, also when the call does not wait for it.
 *
 * While a thread is inside connect() its record has the thread's key. A TCP socket is known by its address from
 * SYN_SENT on, and its record then lives under that: the TCP state tells how it ends. Connects made inside a traced
 * lookup are that lookup's own and are counted only when they are TCP.
 */

#define AF_UNIX 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7
#define EINTR 4
#define EINPROGRESS 115
#define ERESTARTSYS 512
#define THREAD_KEY(host) ((host) | 1ULL << 63)

INLINE u16 swapped(u16 port) { return (u16)(port << 8 | port >> 8); }

/* struct sockaddr_in: port 2, address 4. sockaddr_in6: port 2, address 8. sockaddr_un: path 2. */
INLINE bool read_address(struct connect *record, u64 at, u64 bytes) {
  u16 family = 0, port = 0;
  read_user(&family, sizeof(family), (void *)at);
  record->family = family;
  if (family == AF_UNIX) {
    if (bytes <= 2) return false;
    u64 path_bytes = bytes - 2;
    UNKNOWN(path_bytes);
    if (path_bytes > PATH_BYTES) path_bytes = PATH_BYTES;
    if (read_user(record->path, path_bytes, (void *)at + 2) != 0) return false;
    record->path_bytes = path_bytes;
    if (!record->path[0]) record->flags |= CONNECT_PATH_IS_ABSTRACT;
    return true;
  }
  if (family != AF_INET && family != AF_INET6) return false;
  read_user(&port, sizeof(port), (void *)at + 2);
  record->port = swapped(port);
  if (family == AF_INET) return read_user(record->address, 4, (void *)at + 4) == 0;
  return read_user(record->address, 16, (void *)at + 8) == 0;
}

INLINE void find_lookup_that_gave(struct connect *record) {
  struct given_key key = {.host_pid = record->host_pid, .family = record->family};
  __builtin_memcpy(key.address, record->address, 16);
  struct given *found = given.lookup(&key);
  if (!found) return;
  record->flags |= CONNECT_HAS_LOOKUP;
  record->lookup_key = found->key;
  record->lookup_start_ns = found->start_ns;
  record->lookup_tid = found->tid;
  __builtin_memcpy(record->lookup_name, found->name, GIVEN_NAME_BYTES);
}

INLINE struct connect *new_connect(u64 key, struct ids *ids) {
  int zero = 0;
  struct connect *blank = blank_connect.lookup(&zero);
  if (!blank || connects.update(&key, blank) != 0) {
    count(LOST_CONNECTS_FULL, 1);
    return NULL;
  }
  struct connect *record = connects.lookup(&key);
  if (!record) return NULL;
  record->kind = FRAME_CONNECT;
  record->key = key;
  record->start_ns = bpf_ktime_get_ns();
  record->pid = ids->pid;
  record->tid = ids->tid;
  record->host_pid = ids->host >> 32;
  record->host_tid = (u32)ids->host;
  if (ids->is_supporting) record->flags |= CONNECT_SUPPORTING;
  bpf_get_current_comm(record->comm, COMM_BYTES);
  return record;
}

/* The connection is up: its address works, and what comes next on it may be a TLS handshake. */
INLINE void connection_is_up(struct connect *record, u64 socket) {
  if (record->flags & CONNECT_HAS_LOOKUP) {
    struct given_key key = {.host_pid = record->host_pid, .family = record->family};
    __builtin_memcpy(key.address, record->address, 16);
    struct given *found = given.lookup(&key);
    if (found) found->connected_ns = record->end_ns;
  }
  if (record->flags & CONNECT_IN_LOOKUP || IS_DNS_PORT(record->port)) return;
  int zero = 0;
  u64 *open = handshakes_open.lookup(&zero);
  if (open && handshakes.insert(&socket, record) == 0)
    __sync_fetch_and_add(open, 1);
  else
    handshakes.update(&socket, record);
}

INLINE bool is_uncounted(struct connect *record) {
  if (record->flags & CONNECT_SUPPORTING) return true;
  return record->flags & CONNECT_IN_LOOKUP && record->transport != IPPROTO_TCP;
}

/* The one way a connect ends; the caller has made sure that nobody else ends it too. */
INLINE void end_connect(struct connect *record, u64 key, u8 status, int error) {
  u64 now = record->end_ns ? record->end_ns : bpf_ktime_get_ns();
  record->end_ns = now;
  record->status = status;
  record->error = error;
  u64 took_ns = now - record->start_ns;
  if (!is_uncounted(record)) {
    bool is_earlier = record->flags & CONNECT_BEFORE_ATTACH;
    count(status == STATUS_OK       ? CONNECTS_OK
          : status == STATUS_FAILED ? CONNECTS_FAILED
          : status == STATUS_UNSEEN ? CONNECTS_UNSEEN
                                    : CONNECTS_ABANDONED,
          1);
    if (!is_earlier) observe(LATENCY_CONNECT, took_ns);
    if (is_earlier || is_worth_telling(status, took_ns)) submit(record, sizeof(*record));
  } else if (took_ns >= slow_after_ns()) {
    /* Inside a lookup a quick failure is everyday life (no nscd here); a slow one explains something. */
    submit(record, sizeof(*record));
  }
  if (status == STATUS_OK && record->transport == IPPROTO_TCP) connection_is_up(record, key);
  connects.delete(&key);
}

INLINE bool claim(u64 socket) { return connect_tokens.delete(&socket) == 0; }

struct connect_arguments {
  u64 common;
  long syscall;
  u64 fd;
  u64 address;
  u64 address_bytes;
};

/* Go's resolver connects to DNS servers, and by UDP to the addresses that it sorts: to port 53, in older ones 9. */
INLINE bool may_be_of_go(u16 port) { return IS_DNS_PORT(port) || port == 53 || port == 9; }

int connect_begins(struct connect_arguments *ctx) {
  struct ids ids;
  if (!current_party(&ids)) return 0;
  u64 key = THREAD_KEY(ids.host);
  struct connect *record = new_connect(key, &ids);
  if (!record) return 0;
  record->fd = ctx->fd;
  if (!read_address(record, ctx->address, ctx->address_bytes)) {
    connects.delete(&key);
    return 0;
  }
  u64 call_key = ids.host;
  struct call *call = open_call(&call_key);
  /* Whether the lookup that was open when tracing began still is, only a connect to a DNS server tells. */
  if (call && (!call->is_earlier || (record->family != AF_UNIX && IS_DNS_PORT(record->port)))) {
    record->flags |= CONNECT_IN_LOOKUP;
  } else if (record->family != AF_UNIX && may_be_of_go(record->port) && resolves_in_go(ids.pid)) {
    record->flags |= CONNECT_IN_LOOKUP;
  } else if (!ids.is_supporting) {
    count(CONNECTS_STARTED, 1);
    if (record->family != AF_UNIX) find_lookup_that_gave(record);
  }
  return 0;
}

/* A query that could not even be sent: which server, and what the kernel said. */
INLINE void note_refused_query(u64 host, struct connect *link, int error) {
  struct call *call = open_call(&host);
  if (!call) return;
  struct lookup *record = record_of(call, host);
  if (!record) return;
  u32 n = record->query_count;
  if (n >= MAX_QUERIES) {
    record->more_queries++;
    record->more_answered++; /* it is not owed an answer */
    return;
  }
  struct query *query = &record->queries[n];
  query->sent_ns = link->start_ns;
  query->server_port = link->port;
  query->family = link->family;
  query->transport = link->transport;
  query->error = error;
  query->attempts = 1;
  query->flags = QUERY_NO_MESSAGE;
  __builtin_memcpy(query->server, link->address, 16);
  record->query_count = n + 1;
}

struct syscall_result {
  u64 common;
  long syscall;
  long result;
};

int connect_returns(struct syscall_result *ctx) {
  u64 host = bpf_get_current_pid_tgid();
  u64 thread_key = THREAD_KEY(host);
  struct connect *record = connects.lookup(&thread_key);
  if (!record) return 0;
  long result = ctx->result;
  int error = result < 0 ? -result : 0;
  bool goes_on = error == EINPROGRESS || error == EINTR || error == ERESTARTSYS;
  if (error && !goes_on && record->flags & CONNECT_IN_LOOKUP && record->family != AF_UNIX && IS_DNS_PORT(record->port))
    note_refused_query(host, record, error);
  u64 key = record->key;
  if (key == thread_key) { /* never reached SYN_SENT: UDP, AF_UNIX, or refused before a packet left */
    if (goes_on) {
      /* Of one that began before tracing the socket is not known, so its end will not be seen. */
      if (record->flags & CONNECT_BEFORE_ATTACH)
        end_connect(record, thread_key, STATUS_UNSEEN, 0);
      else
        connects.delete(&thread_key);
      return 0;
    }
  } else {
    connects.delete(&thread_key);
    record = connects.lookup(&key);
    if (!record) return 0;
    if (goes_on) {
      record->flags |= CONNECT_NON_BLOCKING;
      /* On loopback it is often over, well or refused, before connect() has returned. */
      bool is_refused = record->tcp_state == TCP_CLOSE && record->error;
      if (record->tcp_state != TCP_ESTABLISHED && !is_refused) return 0;
      error = is_refused ? record->error : 0;
    }
    if (!claim(key)) return 0;
  }
  end_connect(record, key, error ? STATUS_FAILED : STATUS_OK, error);
  return 0;
}

/* The program closed a socket whose connect had not ended. */
INLINE void connect_is_closed(u64 socket) {
  struct connect *record = connects.lookup(&socket);
  if (!record) return;
  /* Refused this very moment, on another CPU, which has woken the program already: the error is told next. */
  bool is_refused = record->tcp_state == TCP_CLOSE;
  if (is_refused && !record->error) return;
  if (!claim(socket)) return;
  if (!is_refused) record->end_ns = 0;
  end_connect(record, socket, is_refused ? STATUS_FAILED : STATUS_ABANDONED, is_refused ? record->error : 0);
}

/* A socket of ours has been told an error by the network. */
INLINE void connect_has_error(u64 socket, int error) {
  struct connect *record = connects.lookup(&socket);
  if (!record) return;
  record->error = error;
  if (record->end_ns && record->flags & CONNECT_NON_BLOCKING && claim(socket))
    end_connect(record, socket, STATUS_FAILED, error);
}

/* The thread went away inside connect(). */
INLINE void abandon_connect_of(u64 host) {
  u64 thread_key = THREAD_KEY(host);
  struct connect *record = connects.lookup(&thread_key);
  if (!record) return;
  u64 key = record->key;
  if (key != thread_key) {
    connects.delete(&thread_key);
    record = connects.lookup(&key);
    if (!record || !claim(key)) return;
    record->end_ns = 0;
  }
  end_connect(record, key, STATUS_ABANDONED, 0);
}
