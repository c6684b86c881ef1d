/* SPDX-License-Identifier: GPL-2.0 */
/* Every struct that crosses between kernel and agent. Types only: THE boundary.
 *
 * Mirrored in agent/ebpfdns/model/boundary.py; a test compares size and offset of every field by name.
 * Times are CLOCK_MONOTONIC nanoseconds; 0 says "did not happen". Addresses are 16 bytes, an IPv4 address in the
 * first four. Ports and DNS fields are in host order. `pid` and `tid` are as the agent's own pid namespace numbers
 * them, `host_pid` and `host_tid` as the initial one does.
 */
#ifndef EBPFDNS_EVENTS_H
#define EBPFDNS_EVENTS_H

#define LOOKUP_NAME_BYTES 256
#define SERVICE_BYTES 32
#define QUERY_NAME_BYTES 92
#define GIVEN_NAME_BYTES 128
#define PATH_BYTES 108
#define COMM_BYTES 16
#define MAX_QUERIES 8
#define MAX_ADDRESSES 8
#define STRAY_SENDER 7 /* of lookup.addresses, while fewer are known: who sent the latest reply from elsewhere */

/* First field of every frame in the ring buffer. */
enum frame_kind {
  FRAME_LOOKUP = 1,  /* struct lookup: a lookup ended (only as many queries as it has) */
  FRAME_CONNECT = 2, /* struct connect: a connect ended */
  FRAME_PROCESS = 3, /* struct process_change */
};

enum api {
  API_NONE,
  API_GETADDRINFO,
  API_GETHOSTBYNAME,
  API_GETHOSTBYNAME2,
  API_GETHOSTBYNAME_R,
  API_GETHOSTBYNAME2_R,
  API_GETHOSTBYADDR,
  API_GETHOSTBYADDR_R,
  API_GETNAMEINFO,
  API_RES_QUERY,
  API_RES_SEARCH,
  API_RES_SEND,
  API_RES_NQUERY,
  API_RES_NSEARCH,
  API_RES_NSEND,
  API_WIRE, /* DNS traffic that belongs to no call we probe */
  API_UV_GETADDRINFO, /* in libuv's queue; getaddrinfo once a thread begins with it */
  API_GO,  /* a goroutine asks Go's own resolver; who it turns to is not known yet, or it does the work itself */
  API_CGO, /* a goroutine's lookup that getaddrinfo does, on a thread of its own */
};

enum status {
  STATUS_IN_FLIGHT,
  STATUS_OK,
  STATUS_FAILED,
  STATUS_ABANDONED, /* the thread or process went away, or jumped out */
  STATUS_UNSEEN,    /* it has ended; how was not seen, for it began before tracing */
};

/* struct lookup.flags */
#define LOOKUP_NAME_CUT 1      /* longer than LOOKUP_NAME_BYTES - 1 */
#define LOOKUP_NAME_UNREAD 2   /* its memory could not be read */
#define LOOKUP_NAME_IS_WIRE 4  /* DNS wire format, from a packet */
#define LOOKUP_NAME_IS_ADDRESS 8 /* a raw address or sockaddr: a reverse lookup */
#define LOOKUP_CODE_IS_KNOWN 16 /* `code` holds the function's own error code */
#define LOOKUP_SOCKET_CLOSED 32 /* wire: its socket was closed with a question unanswered */
#define LOOKUP_MAY_BE_MISSED 64 /* a map was full: queries of this lookup may be missing */
#define LOOKUP_ANSWER_UNREAD 128 /* wire: all answers came while its thread was away from its event loop */
#define LOOKUP_GOES_BY_TCP 512 /* wire: an answer was truncated, and its thread connects to the server */
#define LOOKUP_MAY_ASK_AGAIN 4096 /* wire: all is answered, but with an error for which resolvers ask again */
#define LOOKUP_LEFT 1024 /* wire: at end_ns its socket was closed unanswered; its program may ask again with another */
#define LOOKUP_MOVED 2048 /* wire: it did */
#define LOOKUP_SUPPORTING 1048576 /* of a daemon that is followed, not a target: neither counted nor told of itself */
#define LOOKUP_ERROR_CUT 2097152 /* Go: the error's text is longer than the place for it */
#define LOOKUP_GOES_ON 4194304 /* cgo: its caller has given up; getaddrinfo goes on, as a lookup of its own */
#define LOOKUP_BEFORE_ATTACH 256 /* it began before tracing did: since start_ns it is known */

/* struct query.flags */
#define QUERY_ANSWERED 1
#define QUERY_TRUNCATED 2
#define QUERY_NAME_CUT 4  /* longer than QUERY_NAME_BYTES */
#define QUERY_NO_MESSAGE 8 /* no packet left: the kernel refused the connect or the send */
#define QUERY_SETTLED 16   /* another server has answered the same question */
#define QUERY_EDNS 32      /* it has something behind the question: an OPT record */
#define QUERY_LATE 64      /* a reply came at reply_ns, when the socket was closed */
#define QUERY_REPLY_REFUSED 128 /* a reply came at reply_ns, and this host's own firewall dropped it */

struct query {
  __u64 socket; /* identity only: the kernel's struct sock; odd: one that is closed */
  __u64 sent_ns;
  __u64 resent_ns; /* the latest repetition with the same id to the same server */
  __u64 reply_ns;
  __u8 server[16];
  __u16 server_port;
  __u16 id;
  __u16 type;
  __u16 answers;  /* ANCOUNT of the reply */
  __s32 error;    /* errno that the kernel gave this socket, e.g. ECONNREFUSED; 0: none */
  __u8 family;    /* AF_INET, AF_INET6 */
  __u8 transport; /* IPPROTO_UDP, IPPROTO_TCP */
  __u8 attempts;
  __u8 rcode;
  __u8 flags;
  __u8 name_bytes;
  __u8 name[QUERY_NAME_BYTES]; /* DNS wire format */
  __u16 local_port; /* of its socket; 0: not known */
  __u32 question_hash; /* of name and type, letters of either case alike */
  __u16 reply_bytes;
  __u8 attempt; /* enum attempt */
  __u8 pad;
};

/* How a query of Go's resolver stands there: one call of net.(*Resolver).exchange. */
enum attempt {
  ATTEMPT_NONE, /* of another resolver */
  ATTEMPT_RUNNING,
  ATTEMPT_OK,
  ATTEMPT_FAILED,
  ATTEMPT_RETURNED, /* how, this version of Go does not tell where we look */
};

/* What `service` of struct lookup holds for API_GO and API_CGO. A failed one has no addresses: there stands the text
 * of its error, `more_addresses` bytes long, and in `code` bits of GO_ERROR_…. */
#define GO_SERVER_BYTES 24
#define GO_ERROR_BYTES 112
struct go_part {
  __u64 goroutine;
  char server[GO_SERVER_BYTES]; /* whose answer, or silence, the error is about */
};
#define GO_ERROR_IS_TIMEOUT 1
#define GO_ERROR_IS_TEMPORARY 2
#define GO_ERROR_IS_NOT_FOUND 4

/* A lookup that has been noticed: it asked or connected (open, in the map `lookups`), or it ended (in the ring). */
struct lookup {
  __u32 kind;
  __u32 flags;
  __u64 key; /* host pid << 32 | host tid for calls; for wire a hash with the highest bit set */
  __u64 start_ns;
  __u64 end_ns;
  __u32 pid;
  __u32 tid;
  __u32 host_pid;
  __u32 host_tid;
  __s32 code;       /* EAI_…, h_errno, or errno, by api */
  __u16 more_answered; /* of more_queries */
  __u8 descriptor_error; /* EMFILE, ENFILE: a socket or file was refused inside it for want of descriptors */
  __u8 wrong_senders;  /* replies with the right id from an address that was not asked; all of these stop at 255 */
  __u16 family;     /* hints.ai_family, or the function's af */
  __u16 more_queries;  /* beyond the MAX_QUERIES that are kept */
  __u8 wrong_ids;       /* replies that came to a socket of this lookup, but fit no question */
  __u8 wrong_questions; /* replies with the id of a question, to another one */
  __u16 name_bytes;
  __u8 api;
  __u8 status;
  __u8 query_count;
  __u8 address_count;
  __u8 more_addresses;
  __u8 nested_calls;
  __u8 is_expected; /* working memory of the programs: in a map the verifier need not tell its values apart */
  __u8 answered;    /* another of these: which of the queries, counted from 1 */
  char comm[COMM_BYTES];
  char service[SERVICE_BYTES];
  char name[LOOKUP_NAME_BYTES];
  __u8 address_families[MAX_ADDRESSES];
  __u8 addresses[MAX_ADDRESSES][16];
  struct query queries[MAX_QUERIES];
};

/* One per thread that ever looked up: reused, never deleted before the thread ends. start_ns 0: idle.
 * Under a key of its own (EARLIER_KEY), at most one for a call that the thread was in when tracing began: whoever
 * deletes that one ends it. */
#define EARLIER_BIT (1ULL << 62)
#define EARLIER_KEY(host) ((host) | EARLIER_BIT)
struct call {
  __u64 start_ns;
  __u64 stack; /* stack pointer at entry of the outermost call: tells a nested call from an abandoned one */
  __u64 name;  /* pointers into the target's memory, read only when the lookup matters */
  __u64 service;
  __u64 hints;
  __u64 result;
  __u64 code_at; /* h_errnop of the _r functions */
  __u32 pid;
  __u32 tid;
  __u32 family;
  __u32 name_size; /* of a raw address */
  __u8 api;
  __u8 has_record; /* there is an entry in `lookups` under this thread's key */
  __u8 is_paused;  /* returned ERANGE: the caller will repeat it with a larger buffer */
  __u8 nested_calls;
  __u8 descriptor_error; /* EMFILE, ENFILE: as in struct lookup */
  __u8 is_earlier; /* found by the agent: see LOOKUP_BEFORE_ATTACH */
  __u8 role;     /* bits of ROLE_…: what a goroutine, or a thread, does for somebody else's lookup */
  __u8 function; /* enum go_function: which one began it */
};

/* One per goroutine while it is in a lookup or works for one, under a key of its own. Its fields are those of struct
 * call: `name` and `service` (the network) with their lengths in name_size and family, `stack` is the goroutine's
 * own struct, `hints` its id, `result` the key of the lookup that it works for, or of the goroutine that works for it,
 * and at the end what is returned; `code_at` the key of the thread whose call is for this lookup. */
#define GO_BIT (1ULL << 61)
#define GO_ID_BITS 39
#define GO_KEY(host_pid, id) (GO_BIT | (__u64)(host_pid) << GO_ID_BITS | ((id) & ((1ULL << GO_ID_BITS) - 1)))
#define GO_HOST_PID(key) ((__u32)((key) >> GO_ID_BITS) & 0x3FFFFF)
#define IS_GO_KEY(key) ((key) >> 61 == 1)
#define ROLE_FLIGHT 1   /* goroutine: works for the lookup `result`, which others may wait for, too */
#define ROLE_ATTEMPT 2  /* goroutine: is in exchange() for the lookup `result` */
#define ROLE_JOINED 4   /* thread: its call is for the lookup `code_at` */

/* What a probe on a Go function is at: the lowest byte of its cookie. */
enum go_function {
  GO_NOTHING,
  GO_LOOKUP_IP_ADDR,
  GO_LOOKUP_HOST,
  GO_LOOKUP_CNAME,
  GO_LOOKUP_SRV,
  GO_LOOKUP_RECORDS, /* MX, NS, TXT, PTR: a name in, a slice and an error out */
  GO_FLIGHT,         /* works for a lookup on a goroutine of its own */
  GO_EXCHANGE,
  GO_ROUND_TRIP,
  GO_STREAM_ROUND_TRIP,
  GO_CALL_LIBC,
};
/* The other bits: where something is in this program's version of Go. */
#define GO_COOKIE_ID 8          /* offset of goid in struct g, 12 bits */
#define GO_COOKIE_PARENT 20     /* … of parentGoid, 12 bits; 0: it has none */
#define GO_COOKIE_TEXT 32       /* … of its text in struct DNSError, 6 bits: newer ones begin with another error */
#define GO_COOKIE_ERROR 38      /* at the return of exchange(): which register begins the error, 5 bits; 31: none */

/* struct connect.flags */
#define CONNECT_IN_LOOKUP 1    /* made by a thread inside a traced lookup */
#define CONNECT_NON_BLOCKING 2 /* connect() said EINPROGRESS */
#define CONNECT_HAS_LOOKUP 4   /* the lookup_… fields are set */
#define CONNECT_PATH_IS_ABSTRACT 8
#define CONNECT_BEFORE_ATTACH 64 /* found by the agent under way: start_ns is when */
#define CONNECT_SUPPORTING 1048576 /* as LOOKUP_SUPPORTING */
#define CONNECT_REFUSED_HERE 128 /* this host's own firewall drops its packets: nobody tells the program */
#define CONNECT_IS_LINK 16 /* only leads from the thread to the socket's own record, see `key` */
#define CONNECT_IS_TLS 32  /* the connection is up: start_ns is when its ClientHello left, which waits for an answer */

struct connect {
  __u32 kind;
  __u32 flags;
  __u64 key; /* struct sock, or host pid << 32 | host tid | 1 << 63 while it has none */
  __u64 start_ns;
  __u64 end_ns;
  __u32 pid;
  __u32 tid;
  __u32 host_pid;
  __u32 host_tid;
  __s32 error; /* errno; 0: none, or not told */
  __u32 fd;
  __u16 family;
  __u16 port;
  __u8 transport; /* IPPROTO_TCP, IPPROTO_UDP; 0: AF_UNIX, or not known */
  __u8 status;
  __u8 tcp_state; /* enum of include/net/tcp_states.h; 0: none seen */
  __u8 path_bytes;
  __u32 retransmits;
  __u32 lookup_tid; /* the lookup that gave this address */
  __u64 lookup_start_ns;
  __u64 lookup_key;
  char comm[COMM_BYTES];
  char lookup_name[GIVEN_NAME_BYTES];
  __u8 address[16];
  char path[PATH_BYTES];
  __u8 pad[4];
};

/* struct wait.fd of a wait that is not in an epoll instance */
#define WAIT_ON_SEVERAL (-1) /* poll and select of two descriptors or more: perhaps an event loop */
#define WAIT_ON_ONE (-2)     /* of one, or none: no loop */

#define LOOP_RETURNS 2 /* a thread that came back from a wait so often will wait there again */

/* What a thread waits in (start_ns > 0), and when it last came back to its event loop. One per thread, reused.
 * Its loop is the latest epoll instance it came back from; without one, what it polls or selects.
 */
struct wait {
  __u64 start_ns;
  __u64 last_return_ns; /* from its loop */
  __u32 pid;
  __u32 tid;
  __s32 fd;      /* of epoll, or WAIT_ON_… */
  __s32 last_fd; /* of its loop's epoll instance; -1: it has none */
  __u8 wait_kind;
  __u8 last_kind;  /* of the latest wait in its loop */
  __u8 has_unread; /* `unread` has an entry for this thread */
  __u8 pad_1;
  __u16 returns;   /* how often it came back from its loop, as far as LOOP_RETURNS */
  __u16 set_size;  /* of poll: entries; of select: the highest descriptor + 1; 65,535 may be more */
  __u64 set;       /* poll: where the entries are; select: the first 64 descriptors wanted for reading, as bits */
};

/* Wire lookups whose answers have arrived while their thread was away from its event loop. */
#define MAX_UNREAD 8
struct unread {
  __u64 keys[MAX_UNREAD];
};

enum wait_kind {
  WAIT_EPOLL_WAIT,
  WAIT_EPOLL_PWAIT,
  WAIT_EPOLL_PWAIT2,
  WAIT_POLL,
  WAIT_PPOLL,
  WAIT_SELECT,
  WAIT_PSELECT6,
  WAIT_KINDS,
};

enum process_change_kind {
  PROCESS_FORKED = 1,
  PROCESS_EXECED = 2,
};

struct process_change {
  __u32 kind;
  __u32 change;
  __u64 at_ns;
  __u32 pid; /* forked: the child, as the initial pid namespace numbers it */
  __u32 parent_pid;
};

/* A DNS socket of a target: who opened it, and where the next message of a TCP stream begins. */
#define SOCKET_OPEN_KEYS 8
struct dns_socket {
  __u64 socket;   /* its own key: the kernel's struct sock, as a number */
  __u64 call_key; /* host pid << 32 | host tid of the thread that used it last */
  __u64 open_keys[SOCKET_OPEN_KEYS]; /* wire lookups begun on it and not ended */
  __u32 pid;
  __u32 tid;
  __u8 server[16];
  __u16 server_port;
  __u8 family;
  __u8 transport;
  __u32 next_sent_seq; /* TCP: sequence number at which the next outgoing length prefix begins */
  __u32 next_received_seq;
  __u16 sent_pending;     /* a length prefix came alone: its message begins at next_sent_seq, this long */
  __u16 received_pending;
  __u8 has_sent_seq;
  __u8 has_received_seq;
  __u8 has_part;   /* TCP: the beginning of a reply has arrived, its end has not; this stands in its header: */
  __u8 is_supporting; /* its process is followed, and no target */
  __u16 part_id;
  __u16 part_bits;
  __u16 part_answers;
  __u16 pad_2;
  __u32 more_open; /* wire lookups open beyond open_keys */
};

/* index of the array `counters`: everything counted, per CPU */
enum counter {
  LOOKUPS_STARTED,
  LOOKUPS_OK,
  LOOKUPS_FAILED,
  LOOKUPS_ABANDONED,
  CONNECTS_STARTED,
  CONNECTS_OK,
  CONNECTS_FAILED,
  CONNECTS_ABANDONED,
  QUERIES_SENT,
  QUERIES_ANSWERED,
  QUERIES_UNANSWERED,
  FRAMES_SUBMITTED,
  FRAMES_KEPT,           /* ended lookups that found no room in the ring: they wait in `lookups` for the agent */
  LOST_RING_FULL,        /* a frame found no room in the ring */
  LOST_CALLS_FULL,       /* a thread found no room in `calls`: its lookups are not seen */
  LOST_LOOKUPS_FULL,     /* a lookup found no room in `lookups`: its queries are not seen */
  LOST_SOCKETS_FULL,
  LOST_CONNECTS_FULL,
  LOST_WAITS_FULL,
  LOST_NAMES_CUT,
  LOST_MEMORY_UNREAD,    /* a name or result could not be read from the target */
  LOST_PACKETS_ODD,      /* a DNS packet that could not be taken apart */
  LOST_SOCKET_KEYS_FULL, /* more wire lookups open on one socket than are remembered */
  LOST_TARGETS_FULL,     /* a child found no room in `targets`: it is not followed */
  HANDSHAKES_STARTED,    /* TLS: a ClientHello left */
  HANDSHAKES_ENDED,      /* … and it was answered, or its connection is gone */
  LOOKUPS_UNSEEN,        /* ended, and how was not seen */
  CONNECTS_UNSEEN,
  COUNTERS,
};

/* rows of the array `histogram`: one a latency */
enum latency {
  LATENCY_LOOKUP,
  LATENCY_CONNECT,
  LATENCY_QUERY,
  LATENCY_WAIT, /* + enum wait_kind */
  LATENCIES = LATENCY_WAIT + WAIT_KINDS,
};

/* bucket i of a row counts values below 2^(i + HISTOGRAM_SHIFT) ns; the last one all above */
#define HISTOGRAM_SHIFT 10
#define HISTOGRAM_BUCKETS 28
struct histogram_row {
  __u64 sum_ns;
  __u64 count[HISTOGRAM_BUCKETS];
};

/* What the agent tells the programs, changed while they run. */
struct settings {
  __u64 slow_after_ns;
  __u32 publish_all;
  __u32 target_count;
};

#endif
