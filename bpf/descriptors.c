/* SPDX-License-Identifier: GPL-2.0 */
/* A lookup that is refused a socket or a file because the process, or the host, has no descriptor left.
 *
 * The programs run at each socket() and open() of the host, and nearly always end at their first line.
 */

#define ENFILE 23
#define EMFILE 24

struct descriptor_result {
  u64 common;
  long syscall;
  long result;
};

INLINE int descriptor_comes(struct descriptor_result *ctx) {
  if (ctx->result != -EMFILE && ctx->result != -ENFILE) return 0;
  u64 key = lookup_key_of(bpf_get_current_pid_tgid());
  struct call *call = calls.lookup(&key);
  if (!call || !call->start_ns || call->is_paused) return 0;
  call->descriptor_error = -ctx->result;
  return 0;
}

int socket_returns(struct descriptor_result *ctx) { return descriptor_comes(ctx); }
int openat_returns(struct descriptor_result *ctx) { return descriptor_comes(ctx); }
int open_returns(struct descriptor_result *ctx) { return descriptor_comes(ctx); }
