/* SPDX-License-Identifier: GPL-2.0 */
/* Every map, and the two things all programs do with them: count, and measure.
 *
 * All are bounded; what finds no room is counted. Together they stay below 16 MiB.
 * BCC rewrites map operations in this main text only, so nothing here may move to a header.
 */

BPF_RINGBUF_OUTPUT(frames, RING_PAGES);

BPF_ARRAY(settings, struct settings, 1);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);
BPF_PERCPU_ARRAY(histogram, struct histogram_row, LATENCIES);

/* Who is traced: a table that answers "no" in a nanosecond, and the truth behind it. Each number has a byte of its
 * own, eight to an element: a byte is set in one go, while two processes of one element may be born on two CPUs. */
BPF_ARRAY(target_slots, u64, 2048);
BPF_HASH(targets, u32, u64, 1024);

#ifdef FOLLOW_CHILDREN
/* A new child of a target, as the kernel numbers it → its parent, as the agent does. */
BPF_TABLE("lru_hash", u32, u32, newborn, 256);
#endif

BPF_HASH(calls, u64, struct call, MAX_CALLS);
BPF_HASH(lookups, u64, struct lookup, MAX_LOOKUPS);
BPF_ARRAY(blank_lookup, struct lookup, 1);

/* (socket, id of a question) → key of the lookup that asked it */
struct question_key {
  u64 socket;
  u64 id;
};
BPF_HASH(asked, struct question_key, u64, MAX_QUESTIONS);
BPF_HASH(sockets, u64, struct dns_socket, MAX_SOCKETS);

/* Questions of followed daemons that are kept: as many as the programs have begun and not ended (first), less those
 * that the agent has dropped (second). A busy daemon whose servers are dead must not crowd out the targets.
 * Of those that were answered quickly a few are told as well, for what a daemon made of them: when the count of these
 * began (third), and that count (fourth). */
BPF_ARRAY(supporting, u64, 4);
#define MAX_SUPPORTING 1024
#define QUICK_SUPPORTING_PER_S 64

/* (id, local port) of a question → its lookup, for a reply that reaches no socket. Each has one place, which a later
 * one may take: then that reply is not seen. */
#define WAITING_PLACES 2048
struct waiting {
  u64 key;
  u32 question_hash;
  u16 id;
  u16 port;
};
BPF_ARRAY(waiting, struct waiting, WAITING_PLACES);
/* socket → when it was closed with more lookups open than it remembers: the agent ends those. */
BPF_HASH(closed_sockets, u64, u64, 1024);

BPF_HASH(connects, u64, struct connect, MAX_CONNECTS);
BPF_ARRAY(blank_connect, struct connect, 1);
/* Who deletes the token of a connect ends it: system call and soft interrupt may both want to. */
BPF_HASH(connect_tokens, u64, u8, MAX_CONNECTS);

/* (process, address) → the lookup that gave the process this address */
struct given_key {
  u32 host_pid;
  u32 family;
  u8 address[16];
};
struct given {
  u64 key;
  u64 start_ns;
  u32 tid;
  u32 pad;
  u64 connected_ns; /* when the process last had a connection to the address */
  char name[GIVEN_NAME_BYTES];
};
BPF_TABLE("lru_hash", struct given_key, struct given, given, 1024);

/* socket → the connect that it came from, until the first bytes pass: which may be the beginning of TLS */
BPF_TABLE("lru_hash", u64, struct connect, handshakes, 256);
/* How many there are, or more: packets look for theirs only when there are any, for that is most of what they pay. */
BPF_ARRAY(handshakes_open, u64, 1);

/* (process, where the name stands) → the goroutine's lookup that libc is about to be called for, on whichever thread:
 * a goroutine may be moved to another one in between. It is there for microseconds; the oldest make room. */
struct awaited_key {
  u64 host_pid;
  u64 name;
};
BPF_TABLE("lru_hash", struct awaited_key, u64, awaited, 256);
/* When there last was one: only then do calls of libc look for theirs. */
BPF_ARRAY(awaited_latest, u64, 1);
#define AWAITED_FOR_NS 1000000000ULL

/* (process, server) → when it last answered a question with an OPT record, and one without */
struct server_key {
  u32 host_pid;
  u32 family;
  u8 address[16];
};
struct server_answers {
  u64 plain_ns;
  u64 edns_ns;
};
BPF_TABLE("lru_hash", struct server_key, struct server_answers, answers_of, 256);

BPF_HASH(waits, u64, struct wait, MAX_WAITS);
BPF_HASH(unread, u64, struct unread, 256);

#define INLINE static __attribute__((always_inline)) inline
/* Unrolled, the loops of these programs would take seconds to compile; the kernel has known loops since 5.3. */
#define LOOP _Pragma("clang loop unroll(disable)") for

/* The compiler forgets what it knows of a value, so that it keeps the bounds check that the verifier wants to see. */
#define UNKNOWN(value) asm volatile("" : "+r"(value))

/* What is in memory stays there, and is read again: where two ways meet, the verifier goes on twice when a register
 * holds another constant on each; what it reads from a map is any number, and it goes on once. */
#define KEEP_IN_MEMORY() asm volatile("" ::: "memory")

/* The helpers by their numbers. Called by name, BCC reads all of /proc/kallsyms anew for each call it meets, to see
 * whether the kernel has them (they are in 5.5): 50 ms a call at compile time. */
static long (*read_user)(void *to, u32 bytes, const void *from) = (void *)112;
static long (*read_kernel)(void *to, u32 bytes, const void *from) = (void *)113;
static long (*read_user_text)(void *to, u32 bytes, const void *from) = (void *)114;
static u64 (*attach_cookie)(void *ctx) = (void *)174;

INLINE void count(int which, u64 by) {
  u64 *counter = counters.lookup(&which);
  if (counter) *counter += by;
}

/* How many binary digits a number has, HISTOGRAM_BUCKETS - 1 at most. Without branches: the verifier would follow
 * each of their 32 ways through everything that comes after. */
INLINE u64 bits_of(u64 number) {
  number |= number >> 1;
  number |= number >> 2;
  number |= number >> 4;
  number |= number >> 8;
  number |= number >> 16;
  number |= number >> 32; /* every digit below the first is set: they are counted, in pairs, fours, eights */
  number &= (1ULL << (HISTOGRAM_BUCKETS - 1)) - 1;
  number -= number >> 1 & 0x55555555;
  number = (number & 0x33333333) + (number >> 2 & 0x33333333);
  number = (number + (number >> 4)) & 0x0F0F0F0F;
  return number * 0x01010101 >> 24 & 31;
}

INLINE void observe(int row_number, u64 took_ns) {
  struct histogram_row *row = histogram.lookup(&row_number);
  if (!row) return;
  row->sum_ns += took_ns;
  u64 bucket = bits_of(took_ns >> HISTOGRAM_SHIFT);
  if (bucket < HISTOGRAM_BUCKETS) row->count[bucket]++;
}

INLINE u64 slow_after_ns(void) {
  int zero = 0;
  struct settings *chosen = settings.lookup(&zero);
  return chosen ? chosen->slow_after_ns : 0;
}

/* Whether a thing that ended is worth a frame: it failed, it was slow, or everything is wanted. */
INLINE bool is_worth_telling(u8 status, u64 took_ns) {
  int zero = 0;
  struct settings *chosen = settings.lookup(&zero);
  if (!chosen) return true;
  return status != STATUS_OK || took_ns >= chosen->slow_after_ns || chosen->publish_all;
}

/* Without flags the kernel wakes the agent only when it has read everything before: a storm costs one wake-up. */
INLINE bool is_submitted(void *frame, u64 bytes) {
  if (frames.ringbuf_output(frame, bytes, 0) != 0) return false;
  count(FRAMES_SUBMITTED, 1);
  return true;
}

INLINE void submit(void *frame, u64 bytes) {
  if (!is_submitted(frame, bytes)) count(LOST_RING_FULL, 1);
}
