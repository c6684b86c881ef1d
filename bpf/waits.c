/* SPDX-License-Identifier: GPL-2.0 */
/* How long the targets' threads wait in epoll, poll and select, and when each last came back.
 *
 * One program pair per system call. A thread of another process costs one test of a bit at entry and at return; a
 * thread that has waited before costs one hash look-up more.
 */

struct wait_arguments {
  u64 common;
  long syscall;
  u64 fd; /* of epoll; another argument elsewhere */
};

#ifdef PIDNS_INODE
#define IS_SOMEBODY_ELSE(host) false /* the bits stand for other numbers than these */
#else
#define IS_SOMEBODY_ELSE(host) (!may_be_target((host) >> 32))
#endif

INLINE int wait_begins(u8 kind, s32 fd) {
  u64 host = bpf_get_current_pid_tgid();
  if (IS_SOMEBODY_ELSE(host)) return 0;
  struct wait *wait = waits.lookup(&host);
  if (!wait) {
    struct ids ids;
    if (!current_target(&ids)) return 0;
    struct wait fresh = {.pid = ids.pid, .tid = ids.tid, .last_fd = -1};
    if (waits.update(&host, &fresh) != 0) {
      count(LOST_WAITS_FULL, 1);
      return 0;
    }
    wait = waits.lookup(&host);
    if (!wait) return 0;
  }
  wait->wait_kind = kind;
  wait->fd = fd;
  wait->start_ns = bpf_ktime_get_ns();
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
  wait->last_return_ns = now;
  wait->last_kind = kind;
  wait->last_fd = wait->fd;
  return 0;
}

int epoll_wait_begins(struct wait_arguments *ctx) { return wait_begins(WAIT_EPOLL_WAIT, ctx->fd); }
int epoll_wait_returns(void *ctx) { return wait_returns(WAIT_EPOLL_WAIT); }
int epoll_pwait_begins(struct wait_arguments *ctx) { return wait_begins(WAIT_EPOLL_PWAIT, ctx->fd); }
int epoll_pwait_returns(void *ctx) { return wait_returns(WAIT_EPOLL_PWAIT); }
int epoll_pwait2_begins(struct wait_arguments *ctx) { return wait_begins(WAIT_EPOLL_PWAIT2, ctx->fd); }
int epoll_pwait2_returns(void *ctx) { return wait_returns(WAIT_EPOLL_PWAIT2); }
int poll_begins(void *ctx) { return wait_begins(WAIT_POLL, -1); }
int poll_returns(void *ctx) { return wait_returns(WAIT_POLL); }
int ppoll_begins(void *ctx) { return wait_begins(WAIT_PPOLL, -1); }
int ppoll_returns(void *ctx) { return wait_returns(WAIT_PPOLL); }
int select_begins(void *ctx) { return wait_begins(WAIT_SELECT, -1); }
int select_returns(void *ctx) { return wait_returns(WAIT_SELECT); }
int pselect6_begins(void *ctx) { return wait_begins(WAIT_PSELECT6, -1); }
int pselect6_returns(void *ctx) { return wait_returns(WAIT_PSELECT6); }
