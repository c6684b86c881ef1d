/* SPDX-License-Identifier: GPL-2.0 */
/* How TCP connects begin and end, as the kernel changes the states of their sockets.
 *
 * A connect() that does not wait, and one made by io_uring, is known from here only.
 */

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
