/* SPDX-License-Identifier: GPL-2.0 */
/* DNS packets that this host drops: questions that its firewall refuses, replies that no socket wants.
 *
 * A connected socket never sees a reply from another address than it asked: the kernel has no socket for it, and drops
 * it. The tracepoint runs for every dropped packet of the host, so the reason is asked first. It does not exist where
 * the kernel tells no reasons (before 5.17), or its types are not known.
 */

#ifdef DROP_NETFILTER

#define EPERM 1
#define SKB_SOCKET 24 /* struct sk_buff: behind two list pointers and the device */

/* A question to a DNS server was refused: the send says EPERM, of a SYN nobody is told. */
INLINE void question_is_refused(u64 socket_key) {
  struct dns_socket *socket = sockets.lookup(&socket_key);
  if (!socket) return;
  u64 thread = socket->call_key, key = lookup_key_of(thread);
  struct call *call = calls.lookup(&key);
  if (!call || !call->start_ns || call->is_paused) return;
  struct lookup *record = NULL;
  if (call->has_record)
    record = lookups.lookup(&key);
  else if (bpf_get_current_pid_tgid() == thread) /* its memory can be read now only */
    record = record_of(call, key);
  if (!record) return;
  u64 n = record->query_count;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= n) break;
    struct query *query = &record->queries[i];
    if (query->socket != socket_key || !(query->flags & QUERY_NO_MESSAGE)) continue;
    if (query->error == EPERM && query->attempts < 255) query->attempts++;
    query->error = EPERM;
    return;
  }
  UNKNOWN(n);
  if (n >= MAX_QUERIES) return;
  struct query *query = &record->queries[n];
  query->socket = socket->socket;
  query->sent_ns = bpf_ktime_get_ns();
  query->server_port = socket->server_port;
  query->family = socket->family;
  query->transport = socket->transport;
  query->attempts = 1;
  query->flags = QUERY_NO_MESSAGE;
  query->error = EPERM;
  __builtin_memcpy(query->server, socket->server, 16);
  record->query_count = n + 1;
}

/* A reply to a question of ours is dropped: it comes from elsewhere, or too late, or the firewall does not let it in. */
INLINE void reply_is_dropped(struct packet *packet, u16 id, bool is_refused) {
  struct waiting *place = waiting_at(id, packet->local_port);
  if (!place || place->id != id || place->port != packet->local_port) return;
  u64 key = place->key;
  struct lookup *record = lookups.lookup(&key);
  if (!record || record->status) return;
  record->is_expected = FITS_NOTHING;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    struct query *query = &record->queries[i];
    if (query->id != id || query->flags & (QUERY_NO_MESSAGE | QUERY_ANSWERED)) continue;
    if (!is_same_server(query, packet)) {
      if (!record->is_expected) record->is_expected = FITS_OTHER_SERVER;
      continue;
    }
    record->is_expected = FITS;
    u64 socket = query->socket;
    bool is_closed = IS_OF_CLOSED(socket) || !sockets.lookup(&socket);
    if (!is_refused && !is_closed) continue;
    query->flags |= is_refused ? QUERY_REPLY_REFUSED : QUERY_LATE;
    query->reply_ns = bpf_ktime_get_ns();
  }
  if (record->is_expected == FITS_OTHER_SERVER && !is_refused)
    note_stray(record, FITS_OTHER_SERVER, packet->family, packet->peer);
}

int packet_dropped(struct bpf_raw_tracepoint_args *ctx) {
  u32 reason = ctx->args[2];
  bool is_refused = reason == DROP_NETFILTER || reason == DROP_CGROUP_EGRESS;
  if (!is_refused && reason != DROP_NO_SOCKET) return 0;
  u64 skb = ctx->args[0], head = 0, socket = 0;
  u16 transport_at = 0, network_at = 0;
  u8 bytes[12] = {}; /* UDP header, id, flags; or the first of TCP */
  read_kernel(&head, sizeof(head), (void *)skb + SKB_HEAD);
  read_kernel(&transport_at, sizeof(transport_at), (void *)skb + SKB_TRANSPORT_HEADER);
  read_kernel(&network_at, sizeof(network_at), (void *)skb + SKB_NETWORK_HEADER);
  if (!head || read_kernel(bytes, sizeof(bytes), (void *)head + transport_at) != 0) return 0;
  struct packet packet = {.port = bytes[0] << 8 | bytes[1], .local_port = bytes[2] << 8 | bytes[3]};
  if (is_refused) {
    read_kernel(&socket, sizeof(socket), (void *)skb + SKB_SOCKET);
    struct connect *connect = connects.lookup(&socket);
    if (connect && connect->port == packet.local_port) connect->flags |= CONNECT_REFUSED_HERE;
  }
  if (IS_DNS_PORT(packet.local_port)) {
    if (is_refused) question_is_refused(socket);
    return 0;
  }
  if (!IS_DNS_PORT(packet.port) || !(bytes[10] & 0x80)) return 0;
  u8 ip[24] = {};
  if (read_kernel(ip, sizeof(ip), (void *)head + network_at) != 0) return 0;
  bool is_v4 = ip[0] >> 4 == 4;
  if ((is_v4 ? ip[9] : ip[6]) != IPPROTO_UDP) return 0;
  if (is_v4 && (ip[6] & 0x1F) | ip[7]) return 0; /* a later fragment: these were no ports */
  packet.family = is_v4 ? AF_INET : AF_INET6;
  if (is_v4)
    __builtin_memcpy(packet.peer, ip + 12, 4);
  else
    __builtin_memcpy(packet.peer, ip + 8, 16);
  reply_is_dropped(&packet, bytes[8] << 8 | bytes[9], is_refused);
  return 0;
}

#endif
