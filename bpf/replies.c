/* SPDX-License-Identifier: GPL-2.0 */
/* An answer finds its question, or turns out to be something else.
 */

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
