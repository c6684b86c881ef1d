/* SPDX-License-Identifier: GPL-2.0 */
/* Which thread a DNS socket belongs to, and which lookup a TCP connection to a DNS server goes on with.
 */

/* A DNS socket is remembered with the thread that opened it, so that its packets find their lookup. */
INLINE void note_socket(u64 socket, struct ids *ids, u8 family, u8 transport, u16 port, u8 *address) {
  struct dns_socket *known = sockets.lookup(&socket);
  if (known) {
    known->call_key = ids->host;
    known->tid = ids->tid;
    return;
  }
  struct dns_socket fresh = {.socket = socket, .call_key = ids->host, .pid = ids->pid, .tid = ids->tid, .family = family};
  fresh.is_supporting = ids->is_supporting;
  fresh.transport = transport;
  fresh.server_port = port;
  __builtin_memcpy(fresh.server, address, 16);
  if (sockets.update(&socket, &fresh) != 0) count(LOST_SOCKETS_FULL, 1);
}

/* Where a thread's wire lookup with a truncated answer is found: it may go on by TCP. */
INLINE struct waiting *truncated_at(u64 call_key) {
  int place = (u32)call_key & (WAITING_PLACES - 1);
  return waiting.lookup(&place);
}

/* This thread connects to a DNS server: for the lookup whose answer was truncated, if there is one. */
INLINE void follow_truncated(u64 socket_key, u64 call_key) {
  struct waiting *truncated = truncated_at(call_key);
  if (!truncated || truncated->id || truncated->port || truncated->question_hash != (u32)call_key) return;
  u64 key = truncated->key;
  struct lookup *record = lookups.lookup(&key);
  struct dns_socket *socket = sockets.lookup(&socket_key);
  if (!record || record->status || record->api != API_WIRE || !socket) return;
  record->flags |= LOOKUP_GOES_BY_TCP;
  socket->open_keys[0] = key;
}
