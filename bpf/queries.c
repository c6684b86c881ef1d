/* SPDX-License-Identifier: GPL-2.0 */
/* The questions that a lookup's record keeps, and where they are found by what a reply says of them.
 */

/* What a query keeps of a socket that is closed: its address may be that of another one soon, and those are even. */
#define OF_CLOSED(socket) ((socket) | 1)
#define IS_OF_CLOSED(socket) ((socket) & 1)
#define WAS_SOCKET(socket) ((socket) & ~1ULL)

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
  query->flags = (question->is_cut ? QUERY_NAME_CUT : 0) | (question->has_more ? QUERY_EDNS : 0);
  query->question_hash = question->hash;
  query->local_port = packet->local_port;
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
      count_for(record, QUERIES_SENT, 1);
      return;
    }
    if (query->id == question->id && query->type == question->type) {
      query->resent_ns = now;
      if (query->attempts < 255) query->attempts++;
      return;
    }
  }
  UNKNOWN(n);
  record->flags &= ~LOOKUP_MAY_ASK_AGAIN;
  if (n < MAX_QUERIES) {
    fill_query(&record->queries[n], packet, question, now);
    record->query_count = n + 1;
  } else {
    if (is_known) return;
    record->more_queries++;
  }
  count_for(record, QUERIES_SENT, 1);
}

/* Where a question waits by its id and port. */
INLINE struct waiting *waiting_at(u32 id, u32 port) {
  int place = (id * 31 + port) & (WAITING_PLACES - 1);
  return waiting.lookup(&place);
}

INLINE void note_waiting(u64 key, struct question *question, u16 port) {
  struct waiting *place = waiting_at(question->id, port);
  if (!place) return;
  place->key = key;
  place->question_hash = question->hash;
  place->id = question->id;
  place->port = port;
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
