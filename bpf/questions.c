/* SPDX-License-Identifier: GPL-2.0 */
/* A question finds its lookup: the library call that its thread is in; without one it is a lookup of its own.
 */

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
    if (!record) {
      record = new_wire_lookup(socket, &question, key);
      if (is_udp) note_question(socket->call_key >> 32, &question, key);
    }
  }
  if (!record) return;
  if (is_udp) note_waiting(key, &question, packet->local_port);
  if (!IS_GO_KEY(key) || call) add_question(record, packet, &question, false);
  if (asked.update(&asked_as, &key) != 0) {
    record->flags |= LOOKUP_MAY_BE_MISSED;
    count(LOST_LOOKUPS_FULL, 1);
  }
}
