/* SPDX-License-Identifier: GPL-2.0 */
/* Lookups that are put into libuv's queue: which of them still wait there, the agent finds out from their memory.
 *
 * uv_getaddrinfo(loop, request, callback, …) returns at once; a thread of the pool calls getaddrinfo later. Nothing
 * tells when it does, so a request stays here until the agent has looked at it, or it is the oldest of too many.
 */

#define QUEUED_BIT 0x80000000 /* no thread id is so large */

BPF_TABLE("lru_hash", u64, struct call, queued, MAX_QUEUED);

int uv_getaddrinfo_begins(struct pt_regs *ctx) {
  struct ids ids;
  if (!current_target(&ids)) return 0;
  u64 request = PT_REGS_PARM2(ctx);
  if (!PT_REGS_PARM3(ctx)) return 0; /* without a callback the caller makes the lookup itself */
  u64 key = (ids.host & ~0xFFFFFFFFULL) | QUEUED_BIT | (request >> 4 & ~QUEUED_BIT & 0xFFFFFFFF);
  struct call waiting = {.name = request, .pid = ids.pid, .tid = ids.tid, .api = API_UV_GETADDRINFO};
  waiting.start_ns = bpf_ktime_get_ns();
  queued.update(&key, &waiting);
  return 0;
}
