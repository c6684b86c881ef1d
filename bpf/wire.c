/* SPDX-License-Identifier: GPL-2.0 */
/* DNS packets of the targets, whichever system calls (or io_uring) carried them.
 *
 * Programs on the target's cgroup see each packet of its sockets, and take the messages out of it.
 */

/* Where the next length prefix of a TCP stream begins; a prefix may come alone, its message later. */
struct stream {
  u32 next;
  u16 pending;
  u8 is_known;
};

/* The reply that has arrived: in a map, so that the verifier need not follow each way that one comes about. */
BPF_PERCPU_ARRAY(replies, struct reply, 1);

INLINE struct reply *new_reply(u16 id, u16 bits, u16 answers) {
  int zero = 0;
  struct reply *reply = replies.lookup(&zero);
  if (!reply) return NULL;
  reply->id = id;
  reply->bits = bits;
  reply->answers = answers;
  reply->bytes = 0;
  reply->question_hash = 0;
  return reply;
}

/* A reply in one packet, with its question. */
INLINE struct reply *whole_reply(struct __sk_buff *skb, u32 at, u32 end) {
  struct reply *reply = new_reply(load_u16(skb, at), load_u16(skb, at + 2), load_u16(skb, at + 6));
  if (!reply) return NULL;
  reply->bytes = end - at;
  if (!load_u16(skb, at + 4)) return reply;
  struct question question = {};
  reply->question_hash = ~0U;
  if (read_question(skb, at, end, &question)) reply->question_hash = question.hash;
  return reply;
}

INLINE void keep(struct dns_socket *socket, struct stream *stream, bool is_leaving) {
  if (is_leaving) {
    socket->has_sent_seq = 1;
    socket->next_sent_seq = stream->next;
    socket->sent_pending = stream->pending;
  } else {
    socket->has_received_seq = 1;
    socket->next_received_seq = stream->next;
    socket->received_pending = stream->pending;
  }
}

/* The next message in a packet, one a run: there is one in a datagram; in a TCP segment none, a part of one, or
 * several. True when the program should run again for the one behind it. */
INLINE bool read_message(struct __sk_buff *skb, struct packet *packet, struct dns_socket *socket, bool is_leaving) {
  if (skb->len <= packet->payload) return false;
  /* Read back from the map it is a number; what skb->sk gives is a pointer, which may not be calculated with. */
  packet->socket = socket->socket;
  u32 bytes = skb->len - packet->payload, position = 0, message = 0, length = bytes;
  struct reply *reply = NULL;
  bool is_stream = packet->transport == IPPROTO_TCP;
  struct stream stream = {};
  if (is_stream) {
    stream.is_known = is_leaving ? socket->has_sent_seq : socket->has_received_seq;
    stream.next = is_leaving ? socket->next_sent_seq : socket->next_received_seq;
    stream.pending = is_leaving ? socket->sent_pending : socket->received_pending;
    if (stream.is_known) position = stream.next - packet->seq;
    if (!is_leaving && socket->has_part && position <= bytes) {
      /* The rest of a reply whose beginning came in an earlier segment: now it is an answer. */
      socket->has_part = 0;
      reply = new_reply(socket->part_id, socket->part_bits, socket->part_answers);
      if (!reply) return false;
      reply->is_followed = position < bytes;
      goto arrived;
    }
    /* Behind the end: nothing begins here. Before the beginning (a huge number): sent again, and known. */
    if (position >= bytes) return false;
    message = position;
    length = stream.pending;
    if (!length) {
      if (position + 2 > bytes) { /* half a length prefix: what follows cannot be told apart */
        count(LOST_PACKETS_ODD, 1);
        return false;
      }
      length = load_u16(skb, packet->payload + position);
      message = position + 2;
    }
    bool is_prefix_alone = message >= bytes;
    stream.pending = is_prefix_alone ? length : 0;
    stream.next = packet->seq + message + (is_prefix_alone ? 0 : length);
    keep(socket, &stream, is_leaving);
    if (is_prefix_alone) return false;
  }
  u32 end = message + length < bytes ? packet->payload + message + length : skb->len;
  u32 at = packet->payload + message;
  if (is_leaving) {
    message_leaves(skb, at, end, packet, socket);
  } else if (end >= at + DNS_HEADER_BYTES) {
    if (message + length > bytes && is_stream) {
      socket->part_id = load_u16(skb, at);
      socket->part_bits = load_u16(skb, at + 2);
      socket->part_answers = load_u16(skb, at + 6);
      socket->has_part = 1;
    } else {
      reply = whole_reply(skb, at, end);
      if (!reply) return false;
      reply->is_followed = end < skb->len;
      goto arrived;
    }
  }
  return end < skb->len;
arrived:
  message_arrives(packet, socket, reply);
  KEEP_IN_MEMORY();
  return reply->is_followed;
}

BPF_PROG_ARRAY(leaves_again, 1);
BPF_PROG_ARRAY(arrives_again, 1);

/* Whether the socket is connected, and not to a DNS port: what it sends and receives needs no look inside. */
INLINE bool is_connected_elsewhere(struct __sk_buff *skb) {
  u32 port = bpf_ntohl(skb->remote_port);
  return port && !IS_DNS_PORT(port);
}

/* A packet leaves with its address translated (a cluster's, Docker's own server); its answer comes as from the address
 * that was asked. What counts is whom the program asks: what its socket is connected to, or what it last sent to. */
INLINE void as_asked(struct packet *packet, u8 *server, u16 port) {
  packet->port = port;
  __builtin_memcpy(packet->peer, server, 16);
}

INLINE void as_connected(struct __sk_buff *skb, struct packet *packet) {
  u32 port = bpf_ntohl(skb->remote_port);
  if (!port) return;
  /* Read one by one: the verifier refuses a place in the context that is chosen at run time. */
  u32 v4 = skb->remote_ip4;
  UNKNOWN(v4);
  u32 words[4] = {skb->remote_ip6[0], skb->remote_ip6[1], skb->remote_ip6[2], skb->remote_ip6[3]};
  u8 server[16] = {};
  if (packet->family == AF_INET)
    __builtin_memcpy(server, &v4, 4);
  else
    __builtin_memcpy(server, words, 16);
  as_asked(packet, server, port);
}

int packet_leaves(struct __sk_buff *skb) {
  struct packet packet = {};
  if (is_connected_elsewhere(skb)) {
    first_bytes_leave(skb);
    return PASS;
  }
  if (!read_headers(skb, &packet, true)) return PASS;
  as_connected(skb, &packet);
  struct bpf_sock *sender = skb->sk;
  if (!sender) return PASS;
  u64 key = (u64)sender;
  struct dns_socket *socket = sockets.lookup(&key);
#ifdef CURRENT_IN_PACKETS
  /* UDP is sent by the thread that asks, in its own context; TCP also by timers, in anybody's. */
  if (packet.transport == IPPROTO_UDP) {
    struct ids ids;
    if (current_party(&ids)) {
      if (!socket || socket->call_key != ids.host)
        note_socket(key, &ids, packet.family, IPPROTO_UDP, packet.port, packet.peer);
      socket = sockets.lookup(&key);
    }
  }
#endif
  if (!socket) return PASS;
  if (!skb->remote_port && socket->family == packet.family) as_asked(&packet, socket->server, socket->server_port);
  if (read_message(skb, &packet, socket, true)) leaves_again.call(skb, 0);
  return PASS;
}

int packet_arrives(struct __sk_buff *skb) {
  struct packet packet = {};
  if (is_connected_elsewhere(skb)) {
    first_bytes_arrive(skb);
    return PASS;
  }
  if (!read_headers(skb, &packet, false)) return PASS;
  struct bpf_sock *receiver = skb->sk;
  if (!receiver) return PASS;
  u64 key = (u64)receiver;
  struct dns_socket *socket = sockets.lookup(&key);
  if (socket && read_message(skb, &packet, socket, false)) arrives_again.call(skb, 0);
  return PASS;
}
