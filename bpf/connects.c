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

/* As the tracepoint records it. */
struct tcp_state_change {
  u64 common;
  u64 socket;
  int old_state;
  int new_state;
  u16 source_port;
  u16 port;
  u16 family;
  u16 protocol;
  u8 source_v4[4];
  u8 address_v4[4];
  u8 source_v6[16];
  u8 address_v6[16];
};

/* A DNS socket is remembered with the thread that opened it, so that its packets find their lookup. */
INLINE void note_socket(u64 socket, struct ids *ids, u8 family, u8 transport, u16 port, u8 *address) {
  struct dns_socket *known = sockets.lookup(&socket);
  if (known) {
    known->call_key = ids->host;
    known->tid = ids->tid;
    return;
  }
  struct dns_socket fresh = {.socket = socket, .call_key = ids->host, .pid = ids->pid, .tid = ids->tid, .family = family};
  fresh.is_supporting = ids->is_supporting;
  fresh.transport = transport;
  fresh.server_port = port;
  __builtin_memcpy(fresh.server, address, 16);
  if (sockets.update(&socket, &fresh) != 0) count(LOST_SOCKETS_FULL, 1);
}

/* Where a thread's wire lookup with a truncated answer is found: it may go on by TCP. */
INLINE struct waiting *truncated_at(u64 call_key) {
  int place = (u32)call_key & (WAITING_PLACES - 1);
  return waiting.lookup(&place);
}

/* This thread connects to a DNS server: for the lookup whose answer was truncated, if there is one. */
INLINE void follow_truncated(u64 socket_key, u64 call_key) {
  struct waiting *truncated = truncated_at(call_key);
  if (!truncated || truncated->id || truncated->port || truncated->question_hash != (u32)call_key) return;
  u64 key = truncated->key;
  struct lookup *record = lookups.lookup(&key);
  struct dns_socket *socket = sockets.lookup(&socket_key);
  if (!record || record->status || record->api != API_WIRE || !socket) return;
  record->flags |= LOOKUP_GOES_BY_TCP;
  socket->open_keys[0] = key;
}

INLINE void tcp_begins(struct tcp_state_change *ctx) {
  struct ids ids;
  if (!current_party(&ids)) return;
  u64 socket = ctx->socket;
  u64 thread_key = THREAD_KEY(ids.host);
  struct connect *link = connects.lookup(&thread_key), *record;
  u8 address[16] = {};
  if (ctx->family == AF_INET)
    __builtin_memcpy(address, ctx->address_v4, 4);
  else
    read_kernel(address, 16, ctx->address_v6);
  if (link) {
    link->transport = IPPROTO_TCP;
    if (connects.update(&socket, link) != 0) {
      count(LOST_CONNECTS_FULL, 1);
      return;
    }
    record = connects.lookup(&socket);
    if (!record) return;
    record->key = socket;
    link->key = socket;
    link->flags |= CONNECT_IS_LINK;
    if (record->flags & CONNECT_IN_LOOKUP) count(CONNECTS_STARTED, 1);
  } else { /* no connect(): io_uring */
    record = new_connect(socket, &ids);
    if (!record) return;
    record->flags |= CONNECT_NON_BLOCKING;
    record->family = ctx->family;
    record->port = ctx->port;
    record->transport = IPPROTO_TCP;
    __builtin_memcpy(record->address, address, 16);
    if (!ids.is_supporting) {
      count(CONNECTS_STARTED, 1);
      find_lookup_that_gave(record);
    }
  }
  record->tcp_state = TCP_SYN_SENT;
  u8 token = 1;
  connect_tokens.update(&socket, &token);
  if (!IS_DNS_PORT(ctx->port)) return;
  note_socket(socket, &ids, ctx->family, IPPROTO_TCP, ctx->port, address);
  follow_truncated(socket, ids.host);
}

INLINE int tcp_state_has_changed(struct tcp_state_change *ctx) {
  if (ctx->old_state == TCP_CLOSE && ctx->new_state == TCP_SYN_SENT) {
    tcp_begins(ctx);
    return 0;
  }
  if (ctx->old_state != TCP_SYN_SENT) return 0;
  u64 socket = ctx->socket;
  struct connect *record = connects.lookup(&socket);
  if (!record) return 0;
  record->tcp_state = ctx->new_state;
  record->end_ns = bpf_ktime_get_ns();
  /* A blocking connect() tells its result itself. A refusal is told below; before 6.10 that comes first. */
  if (!(record->flags & CONNECT_NON_BLOCKING)) return 0;
  bool is_established = ctx->new_state == TCP_ESTABLISHED;
  if (!is_established && !record->error) return 0;
  if (claim(socket)) end_connect(record, socket, is_established ? STATUS_OK : STATUS_FAILED, is_established ? 0 : record->error);
  return 0;
}

#ifdef SOCK_PROTOCOL
/* struct sock_common: skc_daddr 0, skc_dport 12 (network order), skc_family 16. */
int raw_state_changes(struct bpf_raw_tracepoint_args *ctx) { /* socket, old state, new state */
  struct tcp_state_change change = {.socket = ctx->args[0], .old_state = ctx->args[1], .new_state = ctx->args[2]};
  if (change.old_state == TCP_CLOSE && change.new_state == TCP_SYN_SENT) {
    void *socket = (void *)change.socket;
    read_kernel(&change.protocol, sizeof(change.protocol), socket + SOCK_PROTOCOL);
    if (change.protocol != IPPROTO_TCP) return 0;
    read_kernel(change.address_v4, 4, socket);
    read_kernel(&change.port, sizeof(change.port), socket + 12);
    change.port = swapped(change.port);
    read_kernel(&change.family, sizeof(change.family), socket + 16);
    read_kernel(change.address_v6, 16, socket + SOCK_V6_ADDRESS);
  }
  return tcp_state_has_changed(&change);
}
#else
int tcp_state_changes(struct tcp_state_change *ctx) {
  return ctx->protocol == IPPROTO_TCP ? tcp_state_has_changed(ctx) : 0;
}
#endif

int tcp_retransmits(struct bpf_raw_tracepoint_args *ctx) { /* socket, packet */
  u64 socket = ctx->args[0];
  struct connect *record = connects.lookup(&socket);
  if (!record) record = handshakes.lookup(&socket);
  if (record) record->retransmits++;
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
