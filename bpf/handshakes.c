/* SPDX-License-Identifier: GPL-2.0 */
/* The first bytes on a connection of a target's that has just come up: when they begin a TLS handshake, the record of
 * the connect lives on until the other end has sent anything.
 *
 * A packet of a connected socket that is not DNS costs one look into a small map, and none while that is empty. A
 * connection is in there from its first moment to its first bytes from either side, unless those are a ClientHello.
 */

#define TLS_HANDSHAKE 0x16
#define TLS_MAJOR 3

INLINE bool is_any_handshake_open(void) {
  int zero = 0;
  u64 *open = handshakes_open.lookup(&zero);
  return open && *open;
}

INLINE void forget_handshake(u64 key) {
  int zero = 0;
  u64 *open = handshakes_open.lookup(&zero);
  if (handshakes.delete(&key) == 0 && open) __sync_fetch_and_add(open, -1);
}

/* Where the data of a TCP segment begin; 0: it is none. */
INLINE u32 segment_data(struct __sk_buff *skb) {
  u8 first = 0, protocol = 0, words = 0;
  load(skb, 0, &first, 1);
  bool is_v4 = first >> 4 == 4;
  load(skb, is_v4 ? 9 : 6, &protocol, 1);
  if (protocol != IPPROTO_TCP) return 0;
  u32 transport_at = is_v4 ? (first & 15) * 4 : IPV6_HEADER_BYTES;
  load(skb, transport_at + 12, &words, 1);
  return transport_at + (words >> 4) * 4;
}

INLINE void end_handshake(struct connect *record, u64 key, u8 status, int error) {
  u64 now = bpf_ktime_get_ns();
  if (!(record->flags & CONNECT_SUPPORTING)) count(HANDSHAKES_ENDED, 1);
  record->end_ns = now;
  record->status = status;
  record->error = error;
  if (now - record->start_ns >= slow_after_ns()) submit(record, sizeof(*record));
  forget_handshake(key);
}

INLINE void first_bytes_leave(struct __sk_buff *skb) {
  if (!is_any_handshake_open()) return;
  struct bpf_sock *sender = skb->sk;
  if (!sender) return;
  u64 key = (u64)sender;
  struct connect *record = handshakes.lookup(&key);
  if (!record || record->flags & CONNECT_IS_TLS) return;
  u32 at = segment_data(skb);
  if (!at || skb->len < at + 2) return;
  u8 head[2] = {};
  load(skb, at, head, 2);
  if (head[0] != TLS_HANDSHAKE || head[1] != TLS_MAJOR) {
    forget_handshake(key);
    return;
  }
  record->start_ns = bpf_ktime_get_ns();
  record->end_ns = 0;
  record->status = STATUS_IN_FLIGHT;
  record->retransmits = 0;
  record->flags |= CONNECT_IS_TLS;
  if (!(record->flags & CONNECT_SUPPORTING)) count(HANDSHAKES_STARTED, 1);
}

INLINE void first_bytes_arrive(struct __sk_buff *skb) {
  if (!is_any_handshake_open()) return;
  struct bpf_sock *receiver = skb->sk;
  if (!receiver) return;
  u64 key = (u64)receiver;
  struct connect *record = handshakes.lookup(&key);
  if (!record) return;
  u32 at = segment_data(skb);
  if (!at || skb->len <= at) return;
  if (record->flags & CONNECT_IS_TLS)
    end_handshake(record, key, STATUS_OK, 0);
  else
    forget_handshake(key);
}

/* The connection is gone: the program closed it, or (with an error) the other end broke it off. */
INLINE void handshake_is_over(u64 key, int error) {
  struct connect *record = handshakes.lookup(&key);
  if (!record) return;
  if (record->flags & CONNECT_IS_TLS)
    end_handshake(record, key, error ? STATUS_FAILED : STATUS_ABANDONED, error);
  else
    forget_handshake(key);
}
