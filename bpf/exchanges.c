/* SPDX-License-Identifier: GPL-2.0 */
/* What Go's resolver asks: one attempt is one call of net.(*Resolver).exchange, which makes a socket of its own.
 *
 * An attempt is in its lookup's record from its beginning, before anything is sent, and also when nothing ever is.
 * Its message is handed to the socket as bytes: the packet that carries this question and id is this attempt's,
 * whichever thread sends it.
 */

#define TYPE_A 1
#define TYPE_AAAA 28
#define GO_NAME_LENGTH 255 /* in struct Question, behind its name; then its type and class */
#define GO_QUESTION_TAIL 4 /* of a message: type and class */
#define OPT_BYTES 11       /* behind the question of a query with EDNS */
#define GO_SERVER_TEXT 48
/* Where the attempt of a goroutine stands in its lookup's record. Whoever makes one knows of no network. */
#define PLACE(own) ((own)->family)

/* A question that is about to leave: (process, id, question) → key of the goroutine whose attempt it is. It is there
 * for the microseconds until its packet is seen; the oldest make room. */
struct ask_key {
  u32 host_pid;
  u32 question_hash;
  u64 id;
};
BPF_TABLE("lru_hash", struct ask_key, u64, go_asks, MAX_GO_ASKS);

/* Two goroutines of a lookup, or three, may make its record at the same time. */
INLINE struct lookup *record_of_go(struct call *call, u64 key) {
  if (call->has_record) return lookups.lookup(&key);
  int zero = 0;
  struct lookup *blank = blank_lookup.lookup(&zero);
  if (!blank) return NULL;
  bool is_first = lookups.insert(&key, blank) == 0;
  struct lookup *record = lookups.lookup(&key);
  if (!record) {
    count(LOST_LOOKUPS_FULL, 1);
    return NULL;
  }
  if (is_first) {
    describe(record, call, key);
    call->has_record = 1;
  }
  return record;
}

/* A place for an attempt that no other goroutine takes at the same time: those for A and AAAA have every other one. */
INLINE u32 free_place(struct lookup *record, u16 type) {
  u32 place = type == TYPE_AAAA && !record->family ? 1 : 0, step = record->family ? 1 : 2;
  if (type != TYPE_A && type != TYPE_AAAA) step = 1;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (place >= MAX_QUERIES) break;
    if (!record->queries[place & (MAX_QUERIES - 1)].sent_ns) return place;
    place += step;
  }
  if (record->more_queries < 0xFFFF) record->more_queries++;
  return MAX_QUERIES;
}

/* Which server this attempt is at: "192.0.2.1:53" is read here. Any other text takes the place of the name. */
INLINE void read_go_server(struct query *query, u64 text_at, u64 bytes) {
  u8 *text = query->name;
  UNKNOWN(bytes);
  if (bytes > GO_SERVER_TEXT) bytes = GO_SERVER_TEXT;
  __builtin_memset(text, 0, QUERY_NAME_BYTES);
  query->name_bytes = 0;
  if (!bytes || read_user(text, bytes, (void *)text_at) != 0) return;
  query->family = text[0] == '[' ? AF_INET6 : AF_INET;
  if (text[0] == '[') return;
  /* Calculated in the map, for there the verifier need not tell the values apart. */
  volatile u32 *address = (u32 *)query->server;
  volatile u16 *number = &query->server_port;
  *number = 0;
  LOOP (int i = 0; i < 22; i++) {
    u8 letter = text[i];
    if (!letter) break;
    if (letter == '.' || letter == ':') {
      *address = *address >> 8 | (u32)*number << 24;
      *number = 0;
    } else {
      *number = *number * 10 + (letter - '0');
    }
  }
}

/* The question, which was passed on the stack, with its name as text. */
INLINE void read_go_question(struct query *query, u64 question_at) {
  u8 bytes = 0;
  read_user(&query->type, sizeof(query->type), (void *)question_at + GO_NAME_LENGTH + 1);
  if (query->family != AF_INET) return;
  read_user(&bytes, 1, (void *)question_at + GO_NAME_LENGTH);
  if (bytes > QUERY_NAME_BYTES) query->flags |= QUERY_NAME_CUT;
  query->name_bytes = bytes > QUERY_NAME_BYTES ? QUERY_NAME_BYTES : bytes;
  read_user(query->name, QUERY_NAME_BYTES, (void *)question_at);
}

/* exchange(receiver, context (2), server (2), timeout, useTCP, …), the question on the stack. */
int go_exchange_begins(struct pt_regs *ctx) {
  struct goroutine go = {};
  if (!current_goroutine(ctx, &go)) return 0;
  struct call *own = calls.lookup(&go.key);
  if (own && own->role & ROLE_ATTEMPT) return 0; /* the stack has grown */
  u64 key = lookup_of(&go, own);
  struct call *call = key ? calls.lookup(&key) : NULL;
  if (call && !call->start_ns) call = NULL; /* its caller has given up, and nobody else is known to wait */
  if (!call) key = 0;
  if (own) {
    own->role |= ROLE_ATTEMPT;
    own->result = key;
  } else {
    own = new_goroutine(&go, ROLE_ATTEMPT, key);
  }
  if (!own) return 0;
  PLACE(own) = MAX_QUERIES;
  struct lookup *record = call ? record_of_go(call, key) : NULL;
  if (!record) return 0;
  call->api = record->api = API_GO; /* also when C was asked before, in vain */
  record->query_count = MAX_QUERIES;
  u64 question_at = GO_STACK(ctx);
  u16 type = 0;
  read_user(&type, sizeof(type), (void *)question_at + GO_NAME_LENGTH + 1);
  u64 place = free_place(record, type);
  UNKNOWN(place);
  if (place >= MAX_QUERIES) return 0;
  PLACE(own) = place;
  struct query *query = &record->queries[place];
  query->attempts = 1;
  query->flags = QUERY_NO_MESSAGE;
  query->attempt = ATTEMPT_RUNNING;
  read_go_server(query, go_register(ctx, 3), go_register(ctx, 4));
  read_go_question(query, question_at);
  query->sent_ns = bpf_ktime_get_ns();
  return 0;
}

int go_exchange_ends(struct pt_regs *ctx) {
  struct goroutine go = {};
  if (!current_goroutine(ctx, &go)) return 0;
  struct call *own = calls.lookup(&go.key);
  if (!own || !(own->role & ROLE_ATTEMPT)) return 0;
  u64 key = own->result, place = PLACE(own);
  own->role &= ~ROLE_ATTEMPT;
  if (!own->role && !own->start_ns) calls.delete(&go.key);
  struct lookup *record = key ? lookups.lookup(&key) : NULL;
  UNKNOWN(place);
  if (!record || record->status || place >= MAX_QUERIES) return 0;
  u32 at = go.cookie >> GO_COOKIE_ERROR & 31;
  struct query *query = &record->queries[place];
  if (at == GO_NO_REGISTER)
    query->attempt = ATTEMPT_RETURNED;
  else
    query->attempt = go_register(ctx, at) ? ATTEMPT_FAILED : ATTEMPT_OK;
  return 0;
}

/* dnsPacketRoundTrip(connection (2), id, buffer (3)), and the same of a stream, whose buffer begins with a length. */
int go_round_trip_begins(struct pt_regs *ctx) {
  struct goroutine go = {};
  if (!current_goroutine(ctx, &go)) return 0;
  struct call *own = calls.lookup(&go.key);
  if (!own || !(own->role & ROLE_ATTEMPT) || !own->result) return 0;
  u64 at = go_register(ctx, 3), bytes = go_register(ctx, 4), name_bytes;
  if (GO_FUNCTION(&go) == GO_STREAM_ROUND_TRIP) {
    at += 2;
    bytes -= 2;
  }
  u8 head[DNS_HEADER_BYTES] = {};
  if (read_user(head, sizeof(head), (void *)at) != 0) {
    count(LOST_MEMORY_UNREAD, 1); /* what it asks will be a lookup of its own */
    return 0;
  }
  struct question question = {.id = go_register(ctx, 2)};
  name_bytes = bytes - DNS_HEADER_BYTES - GO_QUESTION_TAIL - (head[11] ? OPT_BYTES : 0);
  question.name_bytes = name_bytes;
  UNKNOWN(name_bytes);
  if (name_bytes > 255) return 0;
  u8 type[2] = {};
  read_user(type, 2, (void *)at + DNS_HEADER_BYTES + name_bytes);
  question.type = type[0] << 8 | type[1];
  if (name_bytes > QUERY_NAME_BYTES) name_bytes = QUERY_NAME_BYTES;
  if (name_bytes) read_user(question.name, name_bytes, (void *)at + DNS_HEADER_BYTES);
  hash_question(&question);
  struct ask_key asks = {.host_pid = go.ids.host >> 32, .question_hash = question.hash, .id = question.id};
  go_asks.update(&asks, &go.key);
  return 0;
}

/* The record of the lookup whose attempt has asked this, its key, and the place that the question takes; NULL when it
 * is nobody's who is known. */
INLINE struct lookup *asked_by_goroutine(struct question *question, u32 host_pid, u64 *key, u64 *place) {
  struct ask_key asks = {.host_pid = host_pid, .question_hash = question->hash, .id = question->id};
  u64 *goroutine = go_asks.lookup(&asks);
  if (!goroutine) return NULL;
  u64 own_key = *goroutine; *key = 0;
  go_asks.delete(&asks);
  struct call *own = calls.lookup(&own_key);
  if (!own || !(own->role & ROLE_ATTEMPT)) return NULL;
  *key = own->result;
  struct lookup *record = lookups.lookup(key);
  if (!record || record->status) return NULL;
  u64 at = PLACE(own);
  UNKNOWN(at);
  if (at < MAX_QUERIES && !(record->queries[at].flags & QUERY_NO_MESSAGE)) {
    record->queries[at].attempt = ATTEMPT_OK;
    at = free_place(record, question->type); /* the same question again, by TCP */
    UNKNOWN(at);
    PLACE(own) = at;
    if (at < MAX_QUERIES) record->queries[at].attempt = ATTEMPT_RUNNING;
  }
  *place = at;
  return record;
}
