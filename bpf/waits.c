/* SPDX-License-Identifier: GPL-2.0 */
/* How long the targets' threads wait in epoll, poll and select, and when each last came back to its event loop.
 *
 * One program pair per system call. A thread of another process costs one test of a bit at entry and at return; a
 * thread that has waited before costs one hash look-up more.
 *
 * A thread that polls inside a callback has not come back: once it has an epoll instance, only that one counts.
 */

struct wait_arguments {
  u64 common;
  long syscall;
  u64 fd;   /* of epoll; poll: where its entries are; select: the highest descriptor + 1 */
  u64 next; /* poll: how many entries; select: where the descriptors wanted for reading are */
};

#ifdef PIDNS_INODE
#define IS_SOMEBODY_ELSE(host) false /* the bits stand for other numbers than these */
#else
#define IS_SOMEBODY_ELSE(host) (!may_be_target((host) >> 32))
#endif

#define IS_EPOLL(kind) ((kind) <= WAIT_EPOLL_PWAIT2)
/* Whether this wait, in progress or just over, is one in the thread's event loop. */
#define IS_IN_LOOP(wait, kind) (IS_EPOLL(kind) || ((wait)->fd == WAIT_ON_SEVERAL && (wait)->last_fd < 0))

BPF_PROG_ARRAY(loop_programs, 1);

INLINE struct wait *wait_of_thread(u64 host) {
  struct wait *wait = waits.lookup(&host);
  if (wait) return wait;
  struct ids ids;
  if (!current_target(&ids)) return NULL;
  struct wait fresh = {.pid = ids.pid, .tid = ids.tid, .last_fd = -1};
  if (waits.update(&host, &fresh) == 0) return waits.lookup(&host);
  count(LOST_WAITS_FULL, 1);
  return NULL;
}

INLINE int wait_begins(void *ctx, u8 kind, s32 fd, u64 set, u64 set_size) {
  u64 host = bpf_get_current_pid_tgid();
  if (IS_SOMEBODY_ELSE(host)) return 0;
  struct wait *wait = wait_of_thread(host);
  if (!wait) return 0;
  wait->wait_kind = kind;
  wait->fd = fd;
  if (!IS_EPOLL(kind) && fd == WAIT_ON_SEVERAL) {
    wait->set = set;
    wait->set_size = set_size > 0xFFFF ? 0xFFFF : set_size;
  }
  wait->start_ns = bpf_ktime_get_ns();
  if (wait->has_unread && IS_IN_LOOP(wait, kind)) {
    wait->has_unread = 0;
    loop_programs.call(ctx, 0);
  }
  return 0;
}

INLINE int wait_returns(u8 kind) {
  u64 host = bpf_get_current_pid_tgid();
  if (IS_SOMEBODY_ELSE(host)) return 0;
  struct wait *wait = waits.lookup(&host);
  if (!wait || !wait->start_ns || wait->wait_kind != kind) return 0;
  u64 now = bpf_ktime_get_ns();
  observe(LATENCY_WAIT + kind, now - wait->start_ns);
  wait->start_ns = 0;
  if (!IS_IN_LOOP(wait, kind)) return 0;
  wait->last_return_ns = now;
  if (wait->last_kind != kind || (IS_EPOLL(kind) && wait->last_fd != wait->fd)) {
    wait->last_kind = kind;
    wait->last_fd = IS_EPOLL(kind) ? wait->fd : -1;
    wait->returns = 0;
  }
  if (wait->returns < LOOP_RETURNS) wait->returns++;
  return 0;
}

/* The thread is back in its loop: what it has left unread so far it reads now. */
int loop_is_back(void *ctx) {
  u64 host = bpf_get_current_pid_tgid();
  struct unread *left = unread.lookup(&host);
  if (!left) return 0;
  struct unread taken = *left;
  if (unread.delete(&host) != 0) return 0;
  LOOP (int i = 0; i < MAX_UNREAD; i++) {
    u64 key = taken.keys[i];
    struct lookup *record = key ? lookups.lookup(&key) : NULL;
    if (!record || !(record->flags & LOOKUP_ANSWER_UNREAD)) continue;
    if (is_complete(record))
      end_wire_lookup(record, key, 0);
    else
      record->flags &= ~LOOKUP_ANSWER_UNREAD; /* it has asked more meanwhile */
  }
  return 0;
}

INLINE int poll_or_ppoll_begins(struct wait_arguments *ctx, u8 kind) {
  return wait_begins(ctx, kind, (u32)ctx->next > 1 ? WAIT_ON_SEVERAL : WAIT_ON_ONE, ctx->fd, (u32)ctx->next);
}

INLINE int select_or_pselect6_begins(struct wait_arguments *ctx, u8 kind) {
  u64 bits = 0;
  u32 limit = ctx->fd;
  if (!IS_SOMEBODY_ELSE(bpf_get_current_pid_tgid()) && limit) bits = user_word(ctx->next);
  bool is_several = limit > 64 || bits & (bits - 1);
  return wait_begins(ctx, kind, is_several ? WAIT_ON_SEVERAL : WAIT_ON_ONE, bits, limit);
}

#define EPOLL_BEGINS(kind) wait_begins(ctx, kind, ctx->fd, 0, 0)
int epoll_wait_begins(struct wait_arguments *ctx) { return EPOLL_BEGINS(WAIT_EPOLL_WAIT); }
int epoll_wait_returns(void *ctx) { return wait_returns(WAIT_EPOLL_WAIT); }
int epoll_pwait_begins(struct wait_arguments *ctx) { return EPOLL_BEGINS(WAIT_EPOLL_PWAIT); }
int epoll_pwait_returns(void *ctx) { return wait_returns(WAIT_EPOLL_PWAIT); }
int epoll_pwait2_begins(struct wait_arguments *ctx) { return EPOLL_BEGINS(WAIT_EPOLL_PWAIT2); }
int epoll_pwait2_returns(void *ctx) { return wait_returns(WAIT_EPOLL_PWAIT2); }
int poll_begins(struct wait_arguments *ctx) { return poll_or_ppoll_begins(ctx, WAIT_POLL); }
int poll_returns(void *ctx) { return wait_returns(WAIT_POLL); }
int ppoll_begins(struct wait_arguments *ctx) { return poll_or_ppoll_begins(ctx, WAIT_PPOLL); }
int ppoll_returns(void *ctx) { return wait_returns(WAIT_PPOLL); }
int select_begins(struct wait_arguments *ctx) { return select_or_pselect6_begins(ctx, WAIT_SELECT); }
int select_returns(void *ctx) { return wait_returns(WAIT_SELECT); }
int pselect6_begins(struct wait_arguments *ctx) { return select_or_pselect6_begins(ctx, WAIT_PSELECT6); }
int pselect6_returns(void *ctx) { return wait_returns(WAIT_PSELECT6); }
