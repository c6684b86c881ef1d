/* SPDX-License-Identifier: GPL-2.0 */
/* DNS packets of the targets, whichever system calls (or io_uring) carried them.
 *
 * Programs on the target's cgroup see each packet of its sockets; a port test turns all but DNS away. A question
 * belongs to the library call that its thread is in; without one it is a lookup of its own ("wire"), which ends
 * when all its questions are answered or its socket is closed. Replies are seen when they arrive, not when read.
 */

#define PASS 1 /* these programs watch: every packet goes on its way */
#define IPV6_HEADER_BYTES 40
#define UDP_HEADER_BYTES 8
#define MAX_NAME_LABELS 64
#define WIRE_KEY(socket, name_hash) ((((socket) ^ (name_hash)) * 0x9E3779B97F4A7C15ULL) | 1ULL << 63)

/* One packet, as far as it concerns us. */
struct packet {
  u64 socket;
  u32 payload; /* offset of what follows the UDP or TCP header */
  u32 seq;
  u16 port;
  u8 family;
  u8 transport;
  u8 peer[16]; /* destination when it leaves, source when it comes in */
};

/* A question as it stands in a message. */
struct question {
  u16 id;
  u16 type;
  u16 name_bytes;
  u16 is_cut;
  u64 name_hash;
  u8 name[96]; /* QUERY_NAME_BYTES of it are kept; whole 8-byte words are hashed */
};

INLINE bool load(struct __sk_buff *skb, u32 at, void *to, u32 bytes) {
  return bpf_skb_load_bytes(skb, at, to, bytes) == 0;
}

INLINE u16 load_u16(struct __sk_buff *skb, u32 at) {
  u8 bytes[2] = {};
  load(skb, at, bytes, 2);
  return bytes[0] << 8 | bytes[1];
}

INLINE u32 load_u32(struct __sk_buff *skb, u32 at) {
  u8 bytes[4] = {};
  load(skb, at, bytes, 4);
  return (u32)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

#define HEAD_BYTES 48 /* IPv6 or plain IPv4 header, and the ports behind it */

/* The IP and UDP or TCP headers; false when it is neither, a later fragment, or not to or from a DNS port.
 * Every packet of the cgroup pays for the first half, so it is one copy and a few comparisons. */
INLINE bool read_headers(struct __sk_buff *skb, struct packet *packet, bool is_leaving) {
  u8 head[HEAD_BYTES] = {};
  u64 bytes = skb->len;
  UNKNOWN(bytes);
  if (bytes > HEAD_BYTES) bytes = HEAD_BYTES;
  if (bytes < 28 || !load(skb, 0, head, bytes)) return false;
  u8 protocol;
  u32 transport_at;
  u16 source_port, port;
  if (head[0] >> 4 == 4) {
    protocol = head[9];
    transport_at = (head[0] & 15) * 4;
    source_port = head[20] << 8 | head[21];
    port = head[22] << 8 | head[23];
    if (transport_at != 20) {
      source_port = load_u16(skb, transport_at);
      port = load_u16(skb, transport_at + 2);
    }
  } else {
    protocol = head[6];
    transport_at = IPV6_HEADER_BYTES;
    source_port = head[40] << 8 | head[41];
    port = head[42] << 8 | head[43];
  }
  if (!IS_DNS_PORT(is_leaving ? port : source_port)) return false;
  if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP) return false;
  packet->transport = protocol;
  packet->port = port;
  packet->payload = transport_at + UDP_HEADER_BYTES;
  if (head[0] >> 4 == 4) {
    if ((head[6] & 0x1F) | head[7]) return false;
    packet->family = AF_INET;
    __builtin_memcpy(packet->peer, head + (is_leaving ? 16 : 12), 4);
  } else {
    packet->family = AF_INET6;
    __builtin_memcpy(packet->peer, head + (is_leaving ? 24 : 8), 16);
  }
  if (protocol == IPPROTO_TCP) {
    u8 offset = 0;
    load(skb, transport_at + 12, &offset, 1);
    packet->seq = load_u32(skb, transport_at + 4);
    packet->payload = transport_at + (offset >> 4) * 4;
  }
  return true;
}

/* The first question of the message at `at`; false when there is none, or it cannot be taken apart. */
INLINE bool read_question(struct __sk_buff *skb, u32 at, u32 end, struct question *question) {
  u32 name_at = at + DNS_HEADER_BYTES, position = name_at;
  if (end < name_at + 5 || load_u16(skb, at + 4) != 1) return false;
  question->id = load_u16(skb, at);
  u8 label = 0;
  LOOP (int i = 0; i < MAX_NAME_LABELS; i++) {
    if (position + 5 > end || !load(skb, position, &label, 1) || label > 63) return false;
    position += 1 + label;
    if (!label) break;
  }
  if (label) return false;
  question->type = load_u16(skb, position);
  u64 bytes = position - name_at;
  question->name_bytes = bytes;
  question->is_cut = bytes > QUERY_NAME_BYTES;
  UNKNOWN(bytes);
  if (bytes > QUERY_NAME_BYTES) bytes = QUERY_NAME_BYTES;
  if (bytes < 1 || !load(skb, name_at, question->name, bytes)) return false;
  u64 hash = question->name_bytes;
  LOOP (int i = 0; i < 12; i++) {
    u64 word;
    __builtin_memcpy(&word, question->name + 8 * i, 8);
    /* Letters of either case count as the same: some resolvers shuffle them. */
    hash = (hash ^ (word | 0x2020202020202020ULL)) * 0x100000001B3ULL;
    hash ^= hash >> 29;
  }
  question->name_hash = hash;
  return true;
}

INLINE bool is_same_server(struct query *query, struct packet *packet) {
  return query->family == packet->family && ((u64 *)query->server)[0] == ((u64 *)packet->peer)[0] &&
         ((u64 *)query->server)[1] == ((u64 *)packet->peer)[1];
}

INLINE void fill_query(struct query *query, struct packet *packet, struct question *question, u64 now) {
  query->socket = packet->socket;
  query->sent_ns = now;
  query->server_port = packet->port;
  query->id = question->id;
  query->type = question->type;
  query->error = 0;
  query->family = packet->family;
  query->transport = packet->transport;
  query->attempts = 1;
  query->flags = question->is_cut ? QUERY_NAME_CUT : 0;
  query->name_bytes = question->is_cut ? QUERY_NAME_BYTES : question->name_bytes;
  __builtin_memcpy(query->server, packet->peer, 16);
  __builtin_memcpy(query->name, question->name, QUERY_NAME_BYTES);
  if (question->is_cut) count(LOST_NAMES_CUT, 1);
}

/* Put a question into its lookup: a new query, or one more attempt of a known one. */
INLINE void add_question(struct lookup *record, struct packet *packet, struct question *question, bool is_known) {
  u64 now = bpf_ktime_get_ns();
  u64 n = record->query_count;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= n) break;
    struct query *query = &record->queries[i];
    if (query->socket != packet->socket || !is_same_server(query, packet)) continue;
    if (query->flags & QUERY_NO_MESSAGE) { /* the send that was only tried so far has worked */
      fill_query(query, packet, question, now);
      count(QUERIES_SENT, 1);
      return;
    }
    if (query->id == question->id && query->type == question->type) {
      query->resent_ns = now;
      if (query->attempts < 255) query->attempts++;
      return;
    }
  }
  UNKNOWN(n);
  if (n < MAX_QUERIES) {
    fill_query(&record->queries[n], packet, question, now);
    record->query_count = n + 1;
  } else {
    if (is_known) return;
    record->more_queries++;
  }
  count(QUERIES_SENT, 1);
}

INLINE void remember_open_key(struct dns_socket *socket, u64 key) {
  LOOP (int i = 0; i < SOCKET_OPEN_KEYS; i++) {
    if (socket->open_keys[i]) continue;
    socket->open_keys[i] = key;
    return;
  }
  __sync_fetch_and_add(&socket->more_open, 1);
}

INLINE void forget_open_key(u64 socket_key, u64 key) {
  struct dns_socket *socket = sockets.lookup(&socket_key);
  if (!socket) return;
  LOOP (int i = 0; i < SOCKET_OPEN_KEYS; i++) {
    if (socket->open_keys[i] != key) continue;
    socket->open_keys[i] = 0;
    return;
  }
  if (socket->more_open) __sync_fetch_and_add(&socket->more_open, -1);
}

/* A lookup that no probed call explains: all that is known of it stands in the packet. */
INLINE struct lookup *new_wire_lookup(struct dns_socket *socket, struct question *question, u64 key) {
  int zero = 0;
  struct lookup *blank = blank_lookup.lookup(&zero);
  if (!blank || lookups.update(&key, blank) != 0) {
    count(LOST_LOOKUPS_FULL, 1);
    return NULL;
  }
  struct lookup *record = lookups.lookup(&key);
  if (!record) return NULL;
  record->kind = FRAME_LOOKUP;
  record->key = key;
  record->start_ns = bpf_ktime_get_ns();
  record->pid = socket->pid;
  record->tid = socket->tid;
  record->host_pid = socket->call_key >> 32;
  record->host_tid = (u32)socket->call_key;
  record->api = API_WIRE;
  record->flags = LOOKUP_NAME_IS_WIRE;
  record->name_bytes = question->is_cut ? QUERY_NAME_BYTES : question->name_bytes;
  if (question->is_cut) record->flags |= LOOKUP_NAME_CUT;
  __builtin_memcpy(record->name, question->name, QUERY_NAME_BYTES);
  count(LOOKUPS_STARTED, 1);
  remember_open_key(socket, key);
  return record;
}

INLINE void end_wire_lookup(struct lookup *record, u64 key, u32 flags) {
  u64 now = bpf_ktime_get_ns();
  record->status = STATUS_FAILED;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count || flags & LOOKUP_SOCKET_CLOSED) break;
    if (record->queries[i].flags & QUERY_ANSWERED && record->queries[i].rcode == 0) record->status = STATUS_OK;
  }
  u8 status = record->status;
  record->end_ns = now;
  record->flags |= flags;
  u64 took_ns = now - record->start_ns;
  count_end(status);
  observe(LATENCY_LOOKUP, took_ns);
  settle_questions(record);
  forget_open_key(record->queries[0].socket, key);
  tell_and_forget(record, key, is_worth_telling(status, took_ns));
}

/* Whether the same question, with another id, is in this lookup already: then this is the next lookup of that name. */
INLINE bool has_asked_this(struct lookup *record, struct question *question) {
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    if (record->queries[i].type == question->type && record->queries[i].id != question->id) return true;
  }
  return false;
}

/* A message of a target leaves for a DNS server. */
INLINE void message_leaves(struct __sk_buff *skb, u32 at, u32 end, struct packet *packet, struct dns_socket *socket) {
  struct question question = {};
  if (end < at + DNS_HEADER_BYTES || load_u16(skb, at + 2) & 0x8000) return;
  if (!read_question(skb, at, end, &question)) {
    count(LOST_PACKETS_ODD, 1);
    return;
  }
  struct question_key asked_as = {.socket = packet->socket, .id = question.id};
  /* A and AAAA of a name are one lookup; a second A of it at the same time is another one, told apart by its id. */
  u64 first_key = WIRE_KEY(packet->socket, question.name_hash);
  u64 other_key = WIRE_KEY(packet->socket, question.name_hash + 1 + question.id);
  u64 *known_key = asked.lookup(&asked_as);
  if (known_key) {
    struct lookup *known = lookups.lookup(known_key);
    /* The same id for another name: whoever asked first has given up, and the id is used again. */
    bool is_this = *known_key >> 63 == 0 || *known_key == first_key || *known_key == other_key;
    if (known && is_this) {
      add_question(known, packet, &question, true);
      return;
    }
  }
  u64 key = socket->call_key;
  struct call *call = calls.lookup(&key);
  struct lookup *record = NULL;
  if (call && call->start_ns && !call->is_paused) {
    record = record_of(call, key);
  } else {
    key = first_key;
    record = lookups.lookup(&key);
    if (record && has_asked_this(record, &question)) {
      key = other_key;
      record = lookups.lookup(&key);
    }
    if (!record) record = new_wire_lookup(socket, &question, key);
  }
  if (!record) return;
  add_question(record, packet, &question, false);
  if (asked.update(&asked_as, &key) != 0) {
    record->flags |= LOOKUP_MAY_BE_MISSED;
    count(LOST_LOOKUPS_FULL, 1);
  }
}

/* A message of a DNS server has reached a socket of a target. */
INLINE void message_arrives(struct packet *packet, struct dns_socket *socket, u16 id, u16 bits, u16 answers) {
  struct question_key asked_as = {.socket = packet->socket, .id = id};
  u64 *key_at = asked.lookup(&asked_as);
  u64 key = key_at ? *key_at : socket->call_key;
  struct lookup *record = lookups.lookup(&key);
  if (!record || record->status) return;
  if (!key_at || !(bits & 0x8000)) {
    record->unexpected_replies++;
    return;
  }
  u64 now = bpf_ktime_get_ns();
  record->is_expected = 0;
  record->is_complete = 1;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    struct query *query = &record->queries[i];
    bool is_asked = query->socket == packet->socket && query->id == id && !(query->flags & QUERY_NO_MESSAGE);
    if (is_asked && is_same_server(query, packet)) {
      record->is_expected = 1;
      if (!(query->flags & QUERY_ANSWERED)) {
        query->flags |= QUERY_ANSWERED | (bits & 0x0200 ? QUERY_TRUNCATED : 0);
        query->reply_ns = now;
        query->rcode = bits & 15;
        query->answers = answers;
        count(QUERIES_ANSWERED, 1);
        observe(LATENCY_QUERY, now - query->sent_ns);
      }
    } else if (is_asked) {
      query->flags |= QUERY_SETTLED;
    }
    if (!(query->flags & (QUERY_ANSWERED | QUERY_SETTLED | QUERY_NO_MESSAGE))) record->is_complete = 0;
  }
  if (!record->is_expected) {
    if (record->more_queries > record->more_answered) {
      record->more_answered++;
      count(QUERIES_ANSWERED, 1);
      asked.delete(&asked_as);
    } else {
      record->unexpected_replies++;
      return;
    }
  }
  bool are_more_waiting = record->more_queries != record->more_answered;
  if (record->api == API_WIRE && record->is_complete && !are_more_waiting) end_wire_lookup(record, key, 0);
}

/* Where the next length prefix of a TCP stream begins; a prefix may come alone, its message later. */
struct stream {
  u32 next;
  u16 pending;
  u8 is_known;
};

/* The rest of a reply whose beginning came in an earlier segment: now it is an answer. */
INLINE void part_arrives(struct packet *packet, struct dns_socket *socket) {
  socket->has_part = 0;
  message_arrives(packet, socket, socket->part_id, socket->part_bits, socket->part_answers);
}

INLINE void keep(struct dns_socket *socket, struct stream *stream, bool is_leaving) {
  if (is_leaving) {
    socket->has_sent_seq = 1;
    socket->next_sent_seq = stream->next;
    socket->sent_pending = stream->pending;
  } else {
    socket->has_received_seq = 1;
    socket->next_received_seq = stream->next;
    socket->received_pending = stream->pending;
  }
}

/* The next message in a packet, one a run: there is one in a datagram; in a TCP segment none, a part of one, or
 * several. True when the program should run again for the one behind it. */
INLINE bool read_message(struct __sk_buff *skb, struct packet *packet, struct dns_socket *socket, bool is_leaving) {
  if (skb->len <= packet->payload) return false;
  /* Read back from the map it is a number; what skb->sk gives is a pointer, which may not be calculated with. */
  packet->socket = socket->socket;
  u32 bytes = skb->len - packet->payload, position = 0, message = 0, length = bytes;
  bool is_stream = packet->transport == IPPROTO_TCP;
  struct stream stream = {};
  if (is_stream) {
    stream.is_known = is_leaving ? socket->has_sent_seq : socket->has_received_seq;
    stream.next = is_leaving ? socket->next_sent_seq : socket->next_received_seq;
    stream.pending = is_leaving ? socket->sent_pending : socket->received_pending;
    if (stream.is_known) position = stream.next - packet->seq;
    if (!is_leaving && socket->has_part && position <= bytes) {
      part_arrives(packet, socket);
      return position < bytes;
    }
    /* Behind the end: nothing begins here. Before the beginning (a huge number): sent again, and known. */
    if (position >= bytes) return false;
    message = position;
    length = stream.pending;
    if (!length) {
      if (position + 2 > bytes) { /* half a length prefix: what follows cannot be told apart */
        count(LOST_PACKETS_ODD, 1);
        return false;
      }
      length = load_u16(skb, packet->payload + position);
      message = position + 2;
    }
    bool is_prefix_alone = message >= bytes;
    stream.pending = is_prefix_alone ? length : 0;
    stream.next = packet->seq + message + (is_prefix_alone ? 0 : length);
    keep(socket, &stream, is_leaving);
    if (is_prefix_alone) return false;
  }
  u32 end = message + length < bytes ? packet->payload + message + length : skb->len;
  u32 at = packet->payload + message;
  if (is_leaving) {
    message_leaves(skb, at, end, packet, socket);
  } else if (end >= at + DNS_HEADER_BYTES) {
    u16 id = load_u16(skb, at), bits = load_u16(skb, at + 2), answers = load_u16(skb, at + 6);
    if (message + length > bytes && is_stream) {
      socket->part_id = id;
      socket->part_bits = bits;
      socket->part_answers = answers;
      socket->has_part = 1;
    } else {
      message_arrives(packet, socket, id, bits, answers);
    }
  }
  return end < skb->len;
}

BPF_PROG_ARRAY(leaves_again, 1);
BPF_PROG_ARRAY(arrives_again, 1);

int packet_leaves(struct __sk_buff *skb) {
  struct packet packet = {};
  if (!read_headers(skb, &packet, true)) return PASS;
  struct bpf_sock *sender = skb->sk;
  if (!sender) return PASS;
  u64 key = (u64)sender;
  struct dns_socket *socket = sockets.lookup(&key);
#ifdef CURRENT_IN_PACKETS
  /* UDP is sent by the thread that asks, in its own context; TCP also by timers, in anybody's. */
  if (packet.transport == IPPROTO_UDP) {
    struct ids ids;
    if (current_target(&ids)) {
      if (!socket || socket->call_key != ids.host)
        note_socket(key, &ids, packet.family, IPPROTO_UDP, packet.port, packet.peer);
      socket = sockets.lookup(&key);
    }
  }
#endif
  if (socket && read_message(skb, &packet, socket, true)) leaves_again.call(skb, 0);
  return PASS;
}

int packet_arrives(struct __sk_buff *skb) {
  struct packet packet = {};
  if (!read_headers(skb, &packet, false)) return PASS;
  struct bpf_sock *receiver = skb->sk;
  if (!receiver) return PASS;
  u64 key = (u64)receiver;
  struct dns_socket *socket = sockets.lookup(&key);
  if (socket && read_message(skb, &packet, socket, false)) arrives_again.call(skb, 0);
  return PASS;
}

/* The program is about to connect to, or send to, a DNS server: the route is not looked up yet. */
INLINE void try_server(struct bpf_sock_addr *ctx, u8 family, u8 *address, bool is_send) {
  u16 port = swapped(ctx->user_port);
  struct ids ids;
  if (!current_target(&ids)) return;
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
  struct call *call = calls.lookup(&ids.host);
  if (!call || !call->start_ns || call->is_paused) return;
  struct lookup *record = record_of(call, ids.host);
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
  struct dns_socket *socket = sockets.lookup(&key);
  if (!socket) return PASS;
  LOOP (int i = 0; i < SOCKET_OPEN_KEYS; i++) {
    u64 lookup_key = socket->open_keys[i];
    if (!lookup_key) continue;
    struct lookup *record = lookups.lookup(&lookup_key);
    if (record) end_wire_lookup(record, lookup_key, LOOKUP_SOCKET_CLOSED);
  }
  u64 now = bpf_ktime_get_ns();
  if (socket->more_open && closed_sockets.update(&key, &now) != 0) count(LOST_SOCKET_KEYS_FULL, socket->more_open);
  sockets.delete(&key);
  return PASS;
}

/* The error that a socket was told. The raw event knows the socket, the other one the error; they come in turn. */
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

INLINE void set_query_errors(struct lookup *record, u64 socket, int error) {
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) return;
    struct query *query = &record->queries[i];
    if (query->socket == socket && !(query->flags & QUERY_ANSWERED)) query->error = error;
  }
}

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
  int error = ctx->error < 0 ? -ctx->error : ctx->error;
  connect_has_error(socket, error);
  struct dns_socket *known = sockets.lookup(&socket);
  if (!known) return 0;
  u64 key = known->call_key;
  struct lookup *record = lookups.lookup(&key);
  if (record) set_query_errors(record, socket, error);
  LOOP (int i = 0; i < SOCKET_OPEN_KEYS; i++) {
    key = known->open_keys[i];
    if (!key) continue;
    record = lookups.lookup(&key);
    if (record) set_query_errors(record, socket, error);
  }
  return 0;
}
