/* SPDX-License-Identifier: GPL-2.0 */
/* What happens to DNS sockets beside their packets: a server is tried, an error is told, the socket is closed.
 */

/* The program is about to connect to, or send to, a DNS server: the route is not looked up yet. */
INLINE void try_server(struct bpf_sock_addr *ctx, u8 family, u8 *address, bool is_send) {
  u16 port = swapped(ctx->user_port);
  struct ids ids;
  if (!current_party(&ids)) return;
  u64 thread_key = THREAD_KEY(ids.host);
  struct connect *link = is_send ? NULL : connects.lookup(&thread_key);
  if (link) link->transport = ctx->protocol;
  struct bpf_sock *sender = ctx->sk;
  if (!IS_DNS_PORT(port) || !sender) return;
  u64 socket_key = (u64)sender;
  if (ctx->protocol == IPPROTO_UDP) note_socket(socket_key, &ids, family, IPPROTO_UDP, port, address);
  if (!is_send) return;
  struct dns_socket *socket = sockets.lookup(&socket_key);
  if (!socket) return;
  socket->family = family;
  socket->server_port = port;
  __builtin_memcpy(socket->server, address, 16);
  u64 call_key = ids.host;
  struct call *call = open_call(&call_key);
  if (!call) return;
  struct lookup *record = record_of(call, call_key);
  if (!record) return;
  /* Until its packet is seen this send is only tried. One entry a server is enough. */
  u32 n = record->query_count;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= n) break;
    struct query *query = &record->queries[i];
    if (query->family == family && ((u64 *)query->server)[0] == ((u64 *)address)[0] &&
        ((u64 *)query->server)[1] == ((u64 *)address)[1]) {
      if (query->flags & QUERY_NO_MESSAGE && query->attempts < 255) query->attempts++;
      return;
    }
  }
  if (n >= MAX_QUERIES) return;
  struct query *query = &record->queries[n];
  query->socket = socket->socket;
  query->sent_ns = bpf_ktime_get_ns();
  query->server_port = port;
  query->family = family;
  query->transport = IPPROTO_UDP;
  query->attempts = 1;
  query->flags = QUERY_NO_MESSAGE;
  __builtin_memcpy(query->server, address, 16);
  record->query_count = n + 1;
}

INLINE void read_v4(struct bpf_sock_addr *ctx, u8 *address) {
  u32 word = ctx->user_ip4;
  __builtin_memcpy(address, &word, 4);
}

INLINE u8 read_v6(struct bpf_sock_addr *ctx, u8 *address) {
  u32 words[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
  if (!words[0] && !words[1] && words[2] == 0xFFFF0000) { /* ::ffff:a.b.c.d: on the wire it is IPv4 */
    __builtin_memcpy(address, &words[3], 4);
    return AF_INET;
  }
  __builtin_memcpy(address, words, 16);
  return AF_INET6;
}

int connects_v4(struct bpf_sock_addr *ctx) {
  u8 address[16] = {};
  read_v4(ctx, address);
  try_server(ctx, AF_INET, address, false);
  return PASS;
}

int connects_v6(struct bpf_sock_addr *ctx) {
  u8 address[16] = {};
  u8 family = read_v6(ctx, address);
  try_server(ctx, family, address, false);
  return PASS;
}

int sends_v4(struct bpf_sock_addr *ctx) {
  u8 address[16] = {};
  read_v4(ctx, address);
  try_server(ctx, AF_INET, address, true);
  return PASS;
}

int sends_v6(struct bpf_sock_addr *ctx) {
  u8 address[16] = {};
  u8 family = read_v6(ctx, address);
  try_server(ctx, family, address, true);
  return PASS;
}

int socket_closes(struct bpf_sock *ctx) {
  u64 key = (u64)ctx;
  connect_is_closed(key);
  handshake_is_over(key, 0);
  struct dns_socket *socket = sockets.lookup(&key);
  if (!socket) return PASS;
  LOOP (int i = 0; i < SOCKET_OPEN_KEYS; i++) {
    u64 lookup_key = socket->open_keys[i];
    if (!lookup_key || IS_GO_KEY(lookup_key)) continue; /* its goroutine ends it */
    struct lookup *record = lookups.lookup(&lookup_key);
    if (!record) continue;
    if (record->flags & LOOKUP_GOES_BY_TCP && socket->transport == IPPROTO_UDP) continue; /* it goes on there */
    bool is_answered = record->flags & (LOOKUP_ANSWER_UNREAD | LOOKUP_MAY_ASK_AGAIN);
    if (!i && !is_answered && leave_socket(record, lookup_key, socket->socket)) continue;
    end_wire_lookup(record, lookup_key, is_answered ? 0 : LOOKUP_SOCKET_CLOSED);
  }
  u64 now = bpf_ktime_get_ns();
  if (socket->more_open && closed_sockets.update(&key, &now) != 0) count(LOST_SOCKET_KEYS_FULL, socket->more_open);
  sockets.delete(&key);
  return PASS;
}

INLINE void set_query_errors(struct lookup *record, u64 socket, int error) {
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) return;
    struct query *query = &record->queries[i];
    if (query->socket == socket && !(query->flags & QUERY_ANSWERED)) query->error = error;
  }
}

INLINE int socket_has_error(u64 socket, int error) {
  connect_has_error(socket, error);
  handshake_is_over(socket, error);
  struct dns_socket *known = sockets.lookup(&socket);
  if (!known) return 0;
  u64 key = lookup_key_of(known->call_key);
  struct lookup *record = lookups.lookup(&key);
  if (!record) {
    key = EARLIER_KEY(key);
    record = lookups.lookup(&key);
  }
  if (record) set_query_errors(record, socket, error);
  LOOP (int i = 0; i < SOCKET_OPEN_KEYS; i++) {
    key = known->open_keys[i];
    if (!key) continue;
    record = lookups.lookup(&key);
    if (record) set_query_errors(record, socket, error);
  }
  return 0;
}

#ifdef SOCK_ERROR
int socket_errs_raw(struct bpf_raw_tracepoint_args *ctx) { /* socket */
  u64 socket = ctx->args[0];
  int error = 0;
  read_kernel(&error, sizeof(error), (void *)socket + SOCK_ERROR);
  return socket_has_error(socket, error < 0 ? -error : error);
}
#else
/* The error that a socket was told. The raw event knows the socket, the other one the error; they come in turn,
 * unless another agent's ordinary one was there before ours: then an error is told with the next. */
BPF_PERCPU_ARRAY(erring_socket, u64, 1);

int socket_errs_raw(struct bpf_raw_tracepoint_args *ctx) {
  int zero = 0;
  u64 *socket = erring_socket.lookup(&zero);
  if (socket) *socket = ctx->args[0];
  return 0;
}

struct socket_error {
  u64 common;
  int error;
  u16 source_port;
  u16 port;
};

int socket_errs(struct socket_error *ctx) {
  int zero = 0;
  u64 *noted = erring_socket.lookup(&zero);
  if (!noted || !*noted) return 0;
  u64 socket = *noted;
  *noted = 0;
  /* struct sock_common: skc_dport 12 (network order), skc_num 14. An interrupt may have come between the two. */
  u16 port = 0, source_port = 0;
  read_kernel(&port, sizeof(port), (void *)socket + 12);
  read_kernel(&source_port, sizeof(source_port), (void *)socket + 14);
  if (swapped(port) != ctx->port) return 0;
  if (source_port && source_port != ctx->source_port) return 0; /* a refused TCP socket has given its own back */
  return socket_has_error(socket, ctx->error < 0 ? -ctx->error : ctx->error);
}
#endif
