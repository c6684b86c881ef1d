/* SPDX-License-Identifier: GPL-2.0 */
/* Questions and answers find their lookup.
 *
 * A question belongs to the library call that its thread is in; without one it is a lookup of its own ("wire"), which
 * ends when all its questions are answered or its socket is closed. An answer for which resolvers ask again (SERVFAIL)
 * leaves it open: it ends with a better one, or the socket. Replies are seen when they arrive, not when read: but where
 * the thread is away from its event loop then, the lookup goes on until it is back.
 */

#define WIRE_KEY(socket, name_hash) ((((socket) ^ (name_hash)) * 0x9E3779B97F4A7C15ULL) | 1ULL << 63)

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

/* A lookup that no probed call explains: all that is known of it stands in the packet. */
INLINE struct lookup *new_wire_lookup(struct dns_socket *socket, struct question *question, u64 key) {
  int zero = 0;
  if (socket->is_supporting && !may_keep_supporting()) return NULL;
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
  bool is_told = record->flags & LOOKUP_SUPPORTING ? took_ns >= slow_after_ns() : is_worth_telling(record->status, took_ns);
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

/* Where a process's lookup without a socket is found by what it will ask again. Told from other places by its port,
 * which none has, and this id: */
#define PLACE_OF_LEFT 1
INLINE struct waiting *left_at(u32 host_pid, u32 question_hash) {
  int place = (host_pid * 31 + question_hash) & (WAITING_PLACES - 1);
  return waiting.lookup(&place);
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
  place->id = PLACE_OF_LEFT;
  place->port = 0;
  record->end_ns = now;
  record->flags |= LOOKUP_LEFT;
  return true;
}

/* The lookup that asks this again, with a new socket; NULL: none. */
INLINE struct lookup *take_left(struct dns_socket *socket, struct question *question, u64 *key) {
  u32 host_pid = socket->call_key >> 32;
  struct waiting *place = left_at(host_pid, question->hash);
  if (!place || place->port || place->id != PLACE_OF_LEFT || place->question_hash != question->hash) return NULL;
  *key = place->key;
  struct lookup *record = lookups.lookup(key);
  if (!record || record->host_pid != host_pid || !(record->flags & LOOKUP_LEFT)) return NULL;
  place->id = 0;
  record->flags = (record->flags & ~LOOKUP_LEFT) | LOOKUP_MOVED;
  record->end_ns = 0;
  remember_open_key(socket, *key);
  return record;
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
  bool is_udp = packet->transport == IPPROTO_UDP;
  /* A and AAAA of a name are one lookup; a second A of it at the same time is another one, told apart by its id. */
  u64 first_key = WIRE_KEY(packet->socket, question.name_hash);
  u64 other_key = WIRE_KEY(packet->socket, question.name_hash + 1 + question.id);
  u64 *known_key = asked.lookup(&asked_as);
  if (known_key) {
    struct lookup *known = lookups.lookup(known_key);
    /* The same id for another name: whoever asked first has given up, and the id is used again. */
    bool is_this = *known_key >> 63 == 0 || *known_key == first_key || *known_key == other_key;
    if (known && is_this) {
      if (is_udp) note_waiting(*known_key, &question, packet->local_port);
      add_question(known, packet, &question, true);
      return;
    }
  }
  u64 key, place = MAX_QUERIES;
  struct lookup *record = asked_by_goroutine(&question, socket->call_key >> 32, &key, &place);
  if (!record) key = socket->call_key;
  struct call *call = record ? NULL : open_call(&key);
  if (record) {
    remember_open_key(socket, key);
    if (place < MAX_QUERIES) fill_query(&record->queries[place], packet, &question, bpf_ktime_get_ns());
    count(QUERIES_SENT, 1);
  } else if (call) {
    record = record_of(call, key);
  } else {
    key = socket->open_keys[0]; /* of a connection that was made for it, or the socket that it goes on with */
    if (key) record = lookups.lookup(&key);
    if (record && !(record->flags & (is_udp ? LOOKUP_MOVED : LOOKUP_GOES_BY_TCP))) record = NULL;
    if (record && key != WIRE_KEY(WAS_SOCKET(record->queries[0].socket), question.name_hash)) record = NULL;
    if (!record && is_udp) record = take_left(socket, &question, &key);
    if (!record) {
      key = first_key;
      record = lookups.lookup(&key);
      /* It began on a socket at this very address, which is closed. */
      if (record && record->flags & (LOOKUP_LEFT | LOOKUP_MOVED)) {
        key = other_key;
        record = lookups.lookup(&key);
      }
    } else if (is_udp && has_asked_this(record, &question)) {
      key = first_key;
      record = lookups.lookup(&key);
    }
    if (record && key == first_key && has_asked_this(record, &question)) {
      key = other_key;
      record = lookups.lookup(&key);
    }
    if (!record) record = new_wire_lookup(socket, &question, key);
  }
  if (!record) return;
  if (is_udp) note_waiting(key, &question, packet->local_port);
  if (!IS_GO_KEY(key) || call) add_question(record, packet, &question, false);
  if (asked.update(&asked_as, &key) != 0) {
    record->flags |= LOOKUP_MAY_BE_MISSED;
    count(LOST_LOOKUPS_FULL, 1);
  }
}

/* What a message has turned out to be, in lookup.is_expected. */
#define FITS_NOTHING 0
#define FITS 1
#define FITS_OTHER_QUESTION 2
#define FITS_OTHER_SERVER 3

/* A reply that the resolver must refuse. */
INLINE void note_stray(struct lookup *record, u8 fits, u8 family, u8 *sender) {
  if (fits == FITS_NOTHING && record->wrong_ids < 255) record->wrong_ids++;
  if (fits == FITS_OTHER_QUESTION && record->wrong_questions < 255) record->wrong_questions++;
  if (fits != FITS_OTHER_SERVER) return;
  if (record->wrong_senders < 255) record->wrong_senders++;
  record->address_families[STRAY_SENDER] = family;
  __builtin_memcpy(record->addresses[STRAY_SENDER], sender, 16);
}

/* Which kind of question this server does answer. */
INLINE void note_answer(u32 host_pid, struct query *query, u64 now) {
  struct server_key key = {.host_pid = host_pid, .family = query->family};
  __builtin_memcpy(key.address, query->server, 16);
  struct server_answers *known = answers_of.lookup(&key), fresh = {};
  bool has_edns = query->flags & QUERY_EDNS;
  if (!known) {
    if (has_edns)
      fresh.edns_ns = now;
    else
      fresh.plain_ns = now;
    answers_of.update(&key, &fresh);
  } else if (has_edns) {
    known->edns_ns = now;
  } else {
    known->plain_ns = now;
  }
}

/* What counts of a message that has arrived. */
struct reply {
  u16 id;
  u16 bits;
  u16 answers;
  u16 bytes;
  u32 question_hash; /* 0: it has none, or it was not looked at */
  u32 is_followed;   /* by another message in the same packet */
};

/* Which query a reply answers, or what else it is. The result is in the record, not in registers: the verifier would
 * go through all that follows once for each query that it may be. */
INLINE void find_answered(struct lookup *record, struct packet *packet, struct reply *reply) {
  record->is_expected = FITS_NOTHING;
  record->answered = 0;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    struct query *query = &record->queries[i];
    if (query->socket != packet->socket || query->id != reply->id || query->flags & QUERY_NO_MESSAGE) continue;
    if (reply->question_hash && query->question_hash && reply->question_hash != query->question_hash) {
      if (!record->is_expected) record->is_expected = FITS_OTHER_QUESTION;
    } else if (is_same_server(query, packet)) {
      record->is_expected = FITS;
      if (!(query->flags & QUERY_ANSWERED) || is_retried(query)) record->answered = i + 1;
    } else {
      query->flags |= QUERY_SETTLED;
      if (!record->is_expected) record->is_expected = FITS_OTHER_SERVER;
    }
    KEEP_IN_MEMORY();
  }
  KEEP_IN_MEMORY();
}

INLINE void is_answered(struct lookup *record, struct query *query, struct reply *reply) {
  u64 now = bpf_ktime_get_ns();
  bool is_again = query->flags & QUERY_ANSWERED; /* with an error, for which it was asked again */
  if (is_again && RETRIED_RCODES >> (reply->bits & 15) & 1) return;
  query->flags |= QUERY_ANSWERED | (reply->bits >> 8 & QUERY_TRUNCATED); /* TC is 0x0200 */
  query->reply_ns = now;
  query->rcode = reply->bits & 15;
  query->answers = reply->answers;
  query->reply_bytes = reply->bytes;
  if (query->transport == IPPROTO_UDP) note_answer(record->host_pid, query, now);
  if (is_again || record->flags & LOOKUP_SUPPORTING) return;
  count(QUERIES_ANSWERED, 1);
  observe(LATENCY_QUERY, now - query->sent_ns);
}

/* A message of a DNS server has reached a socket of a target. */
INLINE void message_arrives(struct packet *packet, struct dns_socket *socket, struct reply *reply) {
  u16 bits = reply->bits;
  struct question_key asked_as = {.socket = packet->socket, .id = reply->id};
  u64 *key_at = asked.lookup(&asked_as);
  u64 key;
  bool is_asked_for = key_at != NULL && bits & 0x8000;
  if (key_at)
    key = *key_at;
  else /* a wire lookup: the one, as far as is known, that this socket serves */
    key = socket->open_keys[0] ? socket->open_keys[0] : lookup_key_of(socket->call_key);
  struct lookup *record = lookups.lookup(&key);
  if (!record) {
    if (key_at) return;
    key = EARLIER_KEY(key);
    record = lookups.lookup(&key);
    if (!record) return;
  }
  if (record->status) return;
  if (!is_asked_for) {
    if (record->wrong_ids < 255) record->wrong_ids++;
    return;
  }
  find_answered(record, packet, reply);
  u32 answered = record->answered - 1;
  if (answered < MAX_QUERIES) is_answered(record, &record->queries[answered], reply);
  if (record->is_expected != FITS) {
    if (!record->is_expected && record->more_queries > record->more_answered) {
      record->more_answered++;
      count_for(record, QUERIES_ANSWERED, 1);
      asked.delete(&asked_as);
    } else {
      note_stray(record, record->is_expected, packet->family, packet->peer);
      return;
    }
  }
  if (record->api != API_WIRE || !is_complete(record)) return;
  if (packet->transport == IPPROTO_UDP && bits & 0x0200) {
    /* Its program asks again by TCP, or closes the socket. */
    struct waiting *place = truncated_at(socket->call_key);
    if (!place) return;
    place->key = key;
    place->question_hash = (u32)socket->call_key;
    place->id = 0;
    place->port = 0;
    return;
  }
  /* Its program asks again on this socket, or closes it. */
  if (has_retried(record) && !(record->flags & LOOKUP_SUPPORTING) && !has_epoll_loop(socket)) {
    record->flags |= LOOKUP_MAY_ASK_AGAIN;
    return;
  }
  if (packet->transport == IPPROTO_TCP && socket->open_keys[0] == key) socket->open_keys[0] = 0;
  if (record->flags & LOOKUP_ANSWER_UNREAD || is_left_unread(socket, record, key)) return;
  end_wire_lookup(record, key, 0);
}
