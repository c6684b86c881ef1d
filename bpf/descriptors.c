/* SPDX-License-Identifier: GPL-2.0 */
/* A lookup that is refused a socket because the process, or the host, has no file descriptor left.
 *
 * The program runs at each socket() of the host, and nearly always ends at its first line.
 */

#define ENFILE 23
#define EMFILE 24

struct socket_result {
  u64 common;
  long syscall;
  long result;
};

int socket_returns(struct socket_result *ctx) {
  if (ctx->result != -EMFILE && ctx->result != -ENFILE) return 0;
  u64 key = bpf_get_current_pid_tgid();
  struct call *call = calls.lookup(&key);
  if (!call || !call->start_ns || call->is_paused) return 0;
  call->socket_error = -ctx->result;
  return 0;
}
