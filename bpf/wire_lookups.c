/* SPDX-License-Identifier: GPL-2.0 */
/* Lookups that no library call explains, known from their packets only ("wire").
 *
 * One ends when all its questions are answered or its socket is closed. An answer for which resolvers ask again
 * (SERVFAIL) leaves it open: it ends with a better one, or the socket. Replies are seen when they arrive, not when
 * read: but where the thread is away from its event loop then, the lookup goes on until it is back.
 */

#define WIRE_KEY(socket, name_hash) ((((socket) ^ (name_hash)) * 0x9E3779B97F4A7C15ULL) | 1ULL << 63)

/* Whether there is room for one more question of a daemon's. */
INLINE bool may_keep_supporting(void) {
  int begun_at = 0, dropped_at = 1;
  u64 *begun = supporting.lookup(&begun_at), *dropped = supporting.lookup(&dropped_at);
  if (!begun || !dropped) return false;
  return *begun - *dropped < MAX_SUPPORTING;
}

INLINE void count_supporting(s64 by) {
  int begun_at = 0;
  u64 *begun = supporting.lookup(&begun_at);
  if (begun) __sync_fetch_and_add(begun, by);
}

/* Whether one more quick answer to a daemon is told: so many a second cost the agent nothing that counts. Two CPUs
 * may tell one more. */
INLINE bool may_tell_quick(u64 now) {
  int begun_at = 2, told_at = 3;
  u64 *begun = supporting.lookup(&begun_at), *told = supporting.lookup(&told_at);
  if (!begun || !told) return false;
  if (now - *begun >= 1000000000ULL) {
    *begun = now;
    *told = 0;
  }
  *told += 1;
  return *told <= QUICK_SUPPORTING_PER_S;
}

/* A lookup that no probed call explains: all that is known of it stands in the packet. */
INLINE struct lookup *new_wire_lookup(struct dns_socket *socket, struct question *question, u64 key) {
  if (socket->is_supporting && !may_keep_supporting()) return NULL;
  struct lookup *record = new_record(key);
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
  if (socket->is_supporting) {
    record->flags |= LOOKUP_SUPPORTING;
    count_supporting(1);
  }
  count_for(record, LOOKUPS_STARTED, 1);
  remember_open_key(socket, key);
  return record;
}

/* Whether an answer is good enough: closed with one missing the lookup has failed, unless a truncated one was enough
 * for the program. All bits, no branches (queries behind the last are blank): the verifier has one way through. */
INLINE u64 has_good_answer(struct lookup *record, u64 is_closed) {
  u64 is_good = 0, goes_by_tcp = is_any(record->flags & LOOKUP_GOES_BY_TCP);
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    struct query *query = &record->queries[i];
    u64 flags = query->flags, is_udp = 1 ^ is_any(query->transport ^ IPPROTO_UDP);
    u64 is_cut = is_any(flags & QUERY_TRUNCATED) & is_udp;
    u64 is_enough = (is_cut & is_any(query->answers) & ~goes_by_tcp) | (~is_cut & ~is_closed);
    is_good |= is_any(flags & QUERY_ANSWERED) & ~is_any(query->rcode) & is_enough;
  }
  return is_good & 1;
}

/* The socket that it was begun on, or went on with. */
INLINE u64 open_socket_of(struct lookup *record) {
  u64 found = 0;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    u64 socket = record->queries[i].socket;
    if (!found && !IS_OF_CLOSED(socket)) found = socket;
    UNKNOWN(found);
  }
  return found;
}

INLINE void end_wire_lookup(struct lookup *record, u64 key, u32 flags) {
  u64 now = bpf_ktime_get_ns();
  record->status = STATUS_FAILED - has_good_answer(record, is_any(flags & LOOKUP_SOCKET_CLOSED)); /* or STATUS_OK */
  record->end_ns = now;
  record->flags |= flags;
  u64 took_ns = now - record->start_ns;
  if (!(record->flags & LOOKUP_SUPPORTING)) {
    count_end(record->status);
    observe(LATENCY_LOOKUP, took_ns);
  }
  if (record->flags & LOOKUP_SUPPORTING) count_supporting(-1);
  settle_questions(record);
  KEEP_IN_MEMORY();
  forget_open_key(open_socket_of(record), key);
  KEEP_IN_MEMORY();
  bool is_told = record->flags & LOOKUP_SUPPORTING ? took_ns >= slow_after_ns() || may_tell_quick(now)
                                                   : is_worth_telling(record->status, took_ns);
  tell_and_forget(record, key, is_told);
}

/* SERVFAIL, NOTIMP, REFUSED: a resolver asks again. */
#define RETRIED_RCODES (1U << 2 | 1U << 4 | 1U << 5)

INLINE bool is_retried(struct query *query) {
  return query->flags & QUERY_ANSWERED && query->transport == IPPROTO_UDP && RETRIED_RCODES >> (query->rcode & 15) & 1;
}

/* Whether the thread that uses this socket serves an epoll instance: then nothing says whether it asks again. */
INLINE bool has_epoll_loop(struct dns_socket *socket) {
  u64 thread = socket->call_key;
  struct wait *wait = waits.lookup(&thread);
  return wait && wait->last_fd >= 0;
}

/* Whether no answer is missing. */
INLINE bool is_complete(struct lookup *record) {
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    struct query *query = &record->queries[i];
    if (!(query->flags & (QUERY_ANSWERED | QUERY_SETTLED | QUERY_NO_MESSAGE)) && !IS_OF_CLOSED(query->socket)) return false;
  }
  return record->more_queries == record->more_answered;
}

/* Whether a resolver that has this answer may ask again all the same. All bits, as above. */
INLINE bool has_retried(struct lookup *record) {
  u64 found = 0;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    struct query *query = &record->queries[i];
    u64 is_udp = 1 ^ is_any(query->transport ^ IPPROTO_UDP);
    found |= is_any(query->flags & QUERY_ANSWERED) & is_udp & RETRIED_RCODES >> (query->rcode & 15);
  }
  return found & 1;
}

/* Whether the thread that is to read the answers is away from its event loop. Then the lookup stays open, and is
 * remembered for the moment when the thread is back; it may come back just now. */
INLINE bool is_left_unread(struct dns_socket *socket, struct lookup *record, u64 key) {
  u64 thread = socket->call_key;
  struct wait *wait = waits.lookup(&thread);
  if (!wait || wait->start_ns || wait->returns < LOOP_RETURNS) return false;
  struct unread *left = unread.lookup(&thread);
  if (!left) {
    struct unread fresh = {.keys = {key}};
    if (unread.update(&thread, &fresh) != 0) return false;
  } else {
    bool has_room = false;
    LOOP (int i = 0; i < MAX_UNREAD; i++) {
      if (left->keys[i]) continue;
      left->keys[i] = key;
      has_room = true;
      break;
    }
    if (!has_room) return false;
  }
  record->flags |= LOOKUP_ANSWER_UNREAD;
  wait->has_unread = 1;
  if (!wait->start_ns || unread.delete(&thread) != 0) return true;
  record->flags &= ~LOOKUP_ANSWER_UNREAD;
  return false;
}

/* Whether the same question, with another id, is in this lookup already: then this is the next lookup of that name. */
INLINE bool has_asked_this(struct lookup *record, struct question *question) {
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    struct query *query = &record->queries[i];
    if (query->type == question->type && query->id != question->id && !IS_OF_CLOSED(query->socket)) return true;
  }
  return false;
}

/* A resolver waits for its server a second at least. */
#define AN_ATTEMPT_NS 900000000ULL

/* Where a process's lookup is found by what it asks, with the id of that. Told from other places by its port, which
 * none has. */
INLINE struct waiting *left_at(u32 host_pid, u32 question_hash) {
  int place = (host_pid * 31 + question_hash) & (WAITING_PLACES - 1);
  return waiting.lookup(&place);
}

INLINE void note_question(u32 host_pid, struct question *question, u64 key) {
  struct waiting *place = left_at(host_pid, question->hash);
  if (!place) return;
  place->key = key;
  place->question_hash = question->hash;
  place->id = question->id;
  place->port = 0;
}

/* Its socket is closed without an answer. Resolvers that take a socket for each attempt ask again at once: it stays
 * open for that, and for the answer that comes too late. Otherwise the agent ends it. */
INLINE bool leave_socket(struct lookup *record, u64 key, u64 socket) {
  u64 now = bpf_ktime_get_ns();
  if (now - record->start_ns < AN_ATTEMPT_NS || record->query_count >= MAX_QUERIES) return false;
  if (record->flags & LOOKUP_SUPPORTING) return false;
  u64 unanswered = 0;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    struct query *query = &record->queries[i];
    u64 is_here = 1 ^ is_any(query->socket ^ socket | query->transport ^ IPPROTO_UDP);
    struct question_key asked_as = {.socket = query->socket, .id = query->id};
    query->socket |= is_here; /* OF_CLOSED */
    if (is_here) asked.delete(&asked_as);
    u64 is_first = is_here & (1 ^ is_any(unanswered)) & (1 ^ is_any(query->flags & QUERY_ANSWERED));
    unanswered |= query->question_hash & -is_first;
    UNKNOWN(unanswered);
  }
  struct waiting *place = left_at(record->host_pid, unanswered);
  if (!place || !unanswered) return false;
  place->key = key;
  place->question_hash = unanswered;
  place->id = 0;
  place->port = 0;
  record->end_ns = now;
  record->flags |= LOOKUP_LEFT;
  return true;
}

/* The lookup that asks this again, with a new socket; NULL: none. Some close the old one first (Go), others only then,
 * and keep the id (dig, c-ares). */
INLINE struct lookup *take_left(struct dns_socket *socket, struct question *question, u64 *key) {
  u32 host_pid = socket->call_key >> 32;
  struct waiting *place = left_at(host_pid, question->hash);
  if (!place || place->port || place->question_hash != question->hash) return NULL;
  *key = place->key;
  struct lookup *record = lookups.lookup(key);
  if (!record || record->host_pid != host_pid || record->api != API_WIRE || record->status) return NULL;
  if (!(record->flags & LOOKUP_LEFT)) {
    u64 before = open_socket_of(record);
    if (place->id != question->id || before == socket->socket || !leave_socket(record, *key, before)) return NULL;
    forget_open_key(before, *key);
  }
  place->key = *key;
  place->id = question->id;
  record->flags = (record->flags & ~LOOKUP_LEFT) | LOOKUP_MOVED;
  record->end_ns = 0;
  remember_open_key(socket, *key);
  return record;
}
