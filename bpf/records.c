/* SPDX-License-Identifier: GPL-2.0 */
/* The record of a lookup that matters: it asked somebody, or it ends slowly or badly.
 *
 * Made from a call when its first packet leaves, filled with names and addresses from the target's memory, and told
 * to the agent at its end.
 */

#define AF_INET 2
#define AF_INET6 10
#define DNS_HEADER_BYTES 12

/* What a followed daemon does is not counted: the numbers are those of the targets. */
INLINE void count_for(struct lookup *record, int which, u64 by) {
  if (!(record->flags & LOOKUP_SUPPORTING)) count(which, by);
}

INLINE u64 user_word(u64 at) {
  u64 word = 0;
  if (at) read_user(&word, sizeof(word), (void *)at);
  return word;
}

/* Whether a goroutine made this call: what its fields mean, says events.h. */
#define IS_OF_GO(call) ((call)->function != 0)

INLINE void read_name(struct lookup *record, struct call *call) {
  if (!call->name) return;
  if (call->api == API_RES_SEND || call->api == API_RES_NSEND) {
    record->flags |= LOOKUP_NAME_IS_WIRE;
    record->name_bytes = LOOKUP_NAME_BYTES - 1;
    if (read_user(record->name, LOOKUP_NAME_BYTES - 1, (void *)call->name + DNS_HEADER_BYTES) == 0) return;
    record->name_bytes = 0;
  } else if (call->name_size) {
    u64 bytes = call->name_size;
    UNKNOWN(bytes);
    if (bytes > 28) bytes = 28;
    record->flags |= LOOKUP_NAME_IS_ADDRESS;
    record->name_bytes = bytes;
    if (read_user(record->name, bytes, (void *)call->name) == 0) return;
    record->name_bytes = 0;
  } else {
    long bytes = read_user_text(record->name, LOOKUP_NAME_BYTES, (void *)call->name);
    if (bytes > 0) {
      record->name_bytes = bytes - 1;
      if (bytes < LOOKUP_NAME_BYTES) return;
      /* It may end exactly here: the next byte tells. */
      char next = 0;
      read_user(&next, 1, (void *)call->name + LOOKUP_NAME_BYTES - 1);
      if (!next) return;
      record->flags |= LOOKUP_NAME_CUT;
      count(LOST_NAMES_CUT, 1);
      return;
    }
  }
  record->flags |= LOOKUP_NAME_UNREAD;
  count(LOST_MEMORY_UNREAD, 1);
}

/* The same of a goroutine's call: a Go string is a pointer and a length. */
INLINE void read_go_name(struct lookup *record, struct call *call) {
  u64 bytes = call->name_size;
  if (call->name_size >= LOOKUP_NAME_BYTES) {
    record->flags |= LOOKUP_NAME_CUT;
    count(LOST_NAMES_CUT, 1);
    bytes = LOOKUP_NAME_BYTES - 1;
  }
  UNKNOWN(bytes);
  if (bytes >= LOOKUP_NAME_BYTES) return;
  record->name_bytes = bytes;
  if (!bytes || read_user(record->name, bytes, (void *)call->name) == 0) return;
  record->name_bytes = 0;
  record->flags |= LOOKUP_NAME_UNREAD;
  count(LOST_MEMORY_UNREAD, 1);
}

/* Of which family addresses are wanted, the last letter of the network says: "ip4", "tcp6", "ip". */
INLINE void describe_go(struct lookup *record, struct call *call) {
  struct go_part *part = (struct go_part *)record->service;
  part->goroutine = call->hints;
  char last = 0;
  if (call->service && call->family) read_user(&last, 1, (void *)call->service + call->family - 1);
  record->family = last == '4' ? AF_INET : last == '6' ? AF_INET6 : 0;
  read_go_name(record, call);
}

/* Everything a call knows goes into its record. */
INLINE void describe(struct lookup *record, struct call *call, u64 key) {
  record->kind = FRAME_LOOKUP;
  record->key = key;
  record->start_ns = call->start_ns;
  record->pid = call->pid;
  record->tid = call->tid;
  record->host_pid = (key & ~EARLIER_BIT) >> 32;
  record->host_tid = (u32)key;
  if (call->is_earlier) record->flags |= LOOKUP_BEFORE_ATTACH;
  record->api = call->api;
  record->nested_calls = call->nested_calls;
  record->descriptor_error = call->descriptor_error;
  bpf_get_current_comm(record->comm, COMM_BYTES);
  if (IS_OF_GO(call)) {
    record->host_pid = GO_HOST_PID(key);
    record->host_tid = call->code_at;
    describe_go(record, call);
    return;
  }
  record->family = call->family;
  if (call->hints) {
    u32 family = 0;
    read_user(&family, sizeof(family), (void *)call->hints + 4);
    record->family = family;
  }
  if (call->service) read_user_text(record->service, SERVICE_BYTES, (void *)call->service);
  read_name(record, call);
}

/* An empty record; NULL when the map is full. */
INLINE struct lookup *new_record(u64 key) {
  int zero = 0;
  struct lookup *blank = blank_lookup.lookup(&zero);
  if (!blank || lookups.update(&key, blank) != 0) {
    count(LOST_LOOKUPS_FULL, 1);
    return NULL;
  }
  return lookups.lookup(&key);
}

/* The record of this thread's open call, made when it is not there yet; NULL when the map is full. */
INLINE struct lookup *record_of(struct call *call, u64 key) {
  if (call->has_record) return lookups.lookup(&key);
  struct lookup *record = new_record(key);
  if (!record) return NULL;
  call->has_record = 1;
  describe(record, call, key);
  return record;
}

/* Under which key a thread's lookup has its record. */
INLINE u64 lookup_key_of(u64 thread) {
  struct call *call = calls.lookup(&thread);
  return call && call->role & ROLE_JOINED ? call->code_at : thread;
}

/* The lookup that a thread is in, and its key: a call, one that it makes for a goroutine's lookup, or what it was in when tracing began. */
INLINE struct call *open_call(u64 *key) {
  struct call *call = calls.lookup(key);
  if (call && call->start_ns && call->role & ROLE_JOINED) {
    *key = call->code_at;
    call = calls.lookup(key);
    return call && call->start_ns ? call : NULL;
  }
  if (call && call->start_ns && !call->is_paused) return call;
  *key = EARLIER_KEY(*key);
  return calls.lookup(key);
}

/* 1 for a number above 0 (below 2^63), 0 for 0: without a branch, so that the verifier has one way to follow. */
INLINE u64 is_any(u64 number) {
  UNKNOWN(number);
  return -number >> 63;
}

INLINE void add_address(struct lookup *record, u16 family, u8 *bytes) {
  u32 n = record->address_count;
  if (n >= MAX_ADDRESSES) {
    record->more_addresses += is_any(record->more_addresses ^ 255);
    return;
  }
  record->address_families[n] = family;
  __builtin_memcpy(record->addresses[n], bytes, 16);
  record->address_count = n + 1;
}

/* As the target has it (64 bit). */
struct addrinfo_in_target {
  u32 flags, family, type, protocol;
  u64 address_bytes, address, name, next;
};

/* The list repeats an address for each socket type. */
INLINE void read_addrinfo_list(struct lookup *record, u64 node) {
  u8 last[16] = {}, bytes[16];
  u16 last_family = 0;
  LOOP (int i = 0; i < 3 * MAX_ADDRESSES && node; i++) {
    struct addrinfo_in_target info = {};
    if (read_user(&info, sizeof(info), (void *)node) != 0) return;
    node = info.next;
    u32 family = info.family;
    __builtin_memset(bytes, 0, sizeof(bytes));
    if (family == 2)
      read_user(bytes, 4, (void *)info.address + 4);
    else if (family == 10)
      read_user(bytes, 16, (void *)info.address + 8);
    else
      continue;
    KEEP_IN_MEMORY();
    family = info.family;
    if (family == last_family && ((u64 *)bytes)[0] == ((u64 *)last)[0] && ((u64 *)bytes)[1] == ((u64 *)last)[1])
      continue;
    last_family = family;
    __builtin_memcpy(last, bytes, 16);
    add_address(record, family, bytes);
  }
}

/* struct hostent (64 bit): h_addrtype 16, h_addr_list 24. */
INLINE void read_hostent(struct lookup *record, u64 entry) {
  u32 family = 0;
  read_user(&family, sizeof(family), (void *)entry + 16);
  u64 list = user_word(entry + 24);
  LOOP (int i = 0; i <= MAX_ADDRESSES && list; i++) {
    u8 bytes[16] = {};
    u64 address = user_word(list + 8 * i);
    if (!address) return;
    if (family == 2)
      read_user(bytes, 4, (void *)address);
    else if (family == 10)
      read_user(bytes, 16, (void *)address);
    else
      return;
    add_address(record, family, bytes);
  }
}

/* A slice of IPAddr: {IP []byte; Zone string}. An IPv4 address may have 16 bytes, the last four being it. */
INLINE void read_go_addresses(struct lookup *record, u64 slice, u64 length) {
  struct {
    u64 bytes, length, capacity, zone, zone_length;
  } entry;
  LOOP (int i = 0; i < 2 * MAX_ADDRESSES; i++) {
    if (i >= length || read_user(&entry, sizeof(entry), (void *)slice + i * sizeof(entry)) != 0) return;
    u8 bytes[16] = {};
    u16 family = entry.length == 4 ? AF_INET : AF_INET6;
    read_user(bytes, entry.length == 4 ? 4 : 16, (void *)entry.bytes);
    if (entry.length == 16 && !((u64 *)bytes)[0] && ((u32 *)bytes)[2] == 0xFFFF0000) {
      family = AF_INET;
      ((u64 *)bytes)[0] = ((u32 *)bytes)[3];
      ((u64 *)bytes)[1] = 0;
    }
    add_address(record, family, bytes);
  }
}

/* struct DNSError, behind the error that newer ones wrap. */
struct go_error {
  u64 text, text_bytes, name, name_bytes, server, server_bytes;
  u8 is_timeout, is_temporary, is_not_found;
};

INLINE void read_go_error(struct lookup *record, u64 error_at) {
  struct go_error error = {};
  if (!error_at || read_user(&error, 51, (void *)error_at) != 0) {
    count(LOST_MEMORY_UNREAD, 1);
    return;
  }
  record->code = (error.is_timeout ? GO_ERROR_IS_TIMEOUT : 0) | (error.is_temporary ? GO_ERROR_IS_TEMPORARY : 0) |
                 (error.is_not_found ? GO_ERROR_IS_NOT_FOUND : 0);
  record->flags |= LOOKUP_CODE_IS_KNOWN;
  u64 bytes = error.text_bytes;
  UNKNOWN(bytes);
  if (bytes > GO_ERROR_BYTES) {
    bytes = GO_ERROR_BYTES;
    record->flags |= LOOKUP_ERROR_CUT;
  }
  if (bytes && read_user(record->addresses, bytes, (void *)error.text) == 0) record->more_addresses = bytes;
  struct go_part *part = (struct go_part *)record->service;
  bytes = error.server_bytes;
  UNKNOWN(bytes);
  if (bytes && bytes <= GO_SERVER_BYTES) read_user(part->server, bytes, (void *)error.server);
}

INLINE void read_addresses(struct lookup *record, struct call *call, u64 returned) {
  u8 api = call->api;
  if (call->function == GO_LOOKUP_IP_ADDR) read_go_addresses(record, call->result, returned);
  if (IS_OF_GO(call)) return;
  bool is_returned = api == API_GETHOSTBYNAME || api == API_GETHOSTBYNAME2;
  if (!is_returned) returned = user_word(call->result);
  if (api == API_GETADDRINFO)
    read_addrinfo_list(record, returned);
  else if (is_returned || api == API_GETHOSTBYNAME_R || api == API_GETHOSTBYNAME2_R)
    read_hostent(record, returned);
}

/* A later connect to one of these addresses is then known to come from this lookup. */
INLINE void remember_given(struct lookup *record) {
  struct given given_by = {.key = record->key, .start_ns = record->start_ns, .tid = record->tid};
  read_kernel(given_by.name, GIVEN_NAME_BYTES - 1, record->name);
  LOOP (int i = 0; i < MAX_ADDRESSES; i++) {
    if (i >= record->address_count) return;
    struct given_key key = {.host_pid = record->host_pid, .family = record->address_families[i]};
    __builtin_memcpy(key.address, record->addresses[i], 16);
    struct given *before = given.lookup(&key);
    given_by.connected_ns = before ? before->connected_ns : 0;
    given.update(&key, &given_by);
  }
}

/* What was asked and not answered is counted, and forgotten. */
INLINE void settle_questions(struct lookup *record) {
  u64 unanswered = (u16)(record->more_queries - record->more_answered);
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= record->query_count) break;
    struct query *query = &record->queries[i];
    /* Without a time it is a place that is free. */
    u64 has_message = is_any(query->sent_ns) & (1 ^ is_any(query->flags & QUERY_NO_MESSAGE));
    unanswered += has_message & (1 ^ is_any(query->flags & QUERY_ANSWERED));
    struct question_key question = {.socket = query->socket & -has_message, .id = query->id}; /* 0: there is none */
    asked.delete(&question);
  }
  if (unanswered) count_for(record, QUERIES_UNANSWERED, unanswered);
}

/* What Go's resolver asks is put where there is room, from two goroutines at once; what is told ends with the last. */
INLINE void forget_free_places(struct lookup *record) {
  u32 used = 0;
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (record->queries[i].sent_ns) used = i + 1;
  }
  record->query_count = used;
}

/* An ended lookup leaves the map for the ring. When many end at once the ring may be full: then it stays until the
 * agent takes it from the map, under a key of its own, for its thread may begin the next one at any time. */
#define KEPT_KEY(key, start_ns) ((((key) ^ (start_ns)) * 0x9E3779B97F4A7C15ULL) | 1ULL << 63)
INLINE void tell_and_forget(struct lookup *record, u64 key, bool tell) {
  u64 bytes = sizeof(struct lookup) - (MAX_QUERIES - record->query_count) * sizeof(struct query);
  UNKNOWN(bytes);
  if (tell && bytes <= sizeof(struct lookup) && !is_submitted(record, bytes)) {
    u64 kept_key = KEPT_KEY(key, record->start_ns);
    count(lookups.update(&kept_key, record) == 0 ? FRAMES_KEPT : LOST_RING_FULL, 1);
  }
  lookups.delete(&key);
}
