/* SPDX-License-Identifier: GPL-2.0 */
/* What stands in a packet: its headers, and the first question of a DNS message in it.
 *
 * Every packet of a target's cgroup passes here, so what is not DNS is turned away after one copy and a few
 * comparisons. Nothing is remembered here.
 */

#define PASS 1 /* these programs watch: every packet goes on its way */
#define IPV6_HEADER_BYTES 40
#define UDP_HEADER_BYTES 8
#define MAX_NAME_LABELS 64

/* One packet, as far as it concerns us. */
struct packet {
  u64 socket;
  u32 payload; /* offset of what follows the UDP or TCP header */
  u32 seq;
  u16 port;
  u16 local_port;
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
  u32 hash; /* of name and type; never 0 */
  u32 has_more; /* records behind the question */
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
  /* A connected socket goes to a DNS port (the others were turned away): here that may be translated already. */
  if (!IS_DNS_PORT(is_leaving ? port : source_port) && !(is_leaving && skb->remote_port)) return false;
  if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP) return false;
  packet->transport = protocol;
  packet->port = is_leaving ? port : source_port;
  packet->local_port = is_leaving ? source_port : port;
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

INLINE void hash_question(struct question *question) {
  u64 hash = question->name_bytes;
  LOOP (int i = 0; i < 12; i++) {
    u64 word;
    __builtin_memcpy(&word, question->name + 8 * i, 8);
    /* Letters of either case count as the same: some resolvers shuffle them. */
    hash = (hash ^ (word | 0x2020202020202020ULL)) * 0x100000001B3ULL;
    hash ^= hash >> 29;
  }
  question->name_hash = hash;
  question->hash = ((u32)(hash ^ hash >> 32) ^ question->type * 0x9E3779B1U) | 1;
}

/* The first question of the message at `at`; false when there is none, or it cannot be taken apart. */
INLINE bool read_question(struct __sk_buff *skb, u32 at, u32 end, struct question *question) {
  u32 name_at = at + DNS_HEADER_BYTES, position = name_at;
  if (end < name_at + 5 || load_u16(skb, at + 4) != 1) return false;
  question->id = load_u16(skb, at);
  question->has_more = load_u16(skb, at + 10);
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
  UNKNOWN(bytes);
  question->is_cut = (QUERY_NAME_BYTES - bytes) >> 63; /* no branch, for the verifier's sake */
  if (bytes > QUERY_NAME_BYTES) bytes = QUERY_NAME_BYTES;
  if (bytes < 1 || !load(skb, name_at, question->name, bytes)) return false;
  hash_question(question);
  return true;
}
