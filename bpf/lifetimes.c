/* SPDX-License-Identifier: GPL-2.0 */
/* Ends of threads and processes, so that nothing stays open for ever; new programs and new children. */

INLINE void thread_is_gone(u64 host) {
  LOOP (int i = 0; i < 2; i++) {
    u64 key = i ? EARLIER_KEY(host) : host;
    struct call *found = calls.lookup(&key);
    if (!found) continue;
    struct call call = *found;
    if (calls.delete(&key) == 0 && call.start_ns && !call.role)
      end_call(&call, key, bpf_ktime_get_ns(), i ? STATUS_UNSEEN : STATUS_ABANDONED, 0, 0, 0);
  }
  abandon_connect_of(host);
  waits.delete(&host);
  unread.delete(&host);
}

int thread_exits(void *ctx) {
  thread_is_gone(bpf_get_current_pid_tgid());
  return 0;
}

INLINE void tell_change(u32 change, u32 pid, u32 parent_pid) {
  struct process_change told = {.kind = FRAME_PROCESS, .change = change, .pid = pid, .parent_pid = parent_pid};
  told.at_ns = bpf_ktime_get_ns();
  if (frames.ringbuf_output(&told, sizeof(told), 0) == 0)
    count(FRAMES_SUBMITTED, 1);
  else
    count(LOST_RING_FULL, 1);
}

/* After an exec only one thread is left, under the process's number; its calls belong to the old program. */
int program_execs(struct bpf_raw_tracepoint_args *ctx) { /* task, old tid, program */
  struct ids ids;
  if (!current_target(&ids)) return 0;
  u64 process = ids.host >> 32 << 32;
  LOOP (int i = 0; i < 2; i++) thread_is_gone(process | (i ? process >> 32 : (u32)ctx->args[1]));
  tell_change(PROCESS_EXECED, ids.pid, 0);
  return 0;
}

#ifdef FOLLOW_CHILDREN
#define CLONE_THREAD 0x00010000

struct new_task {
  u64 common;
  int pid;
  char comm[COMM_BYTES];
  u64 clone_flags;
};

/* The truth before the table: whoever clears a slot looks at the truth afterwards (kernel_maps.py). */
INLINE void adopt(u32 child, u32 parent) {
  int index = (child >> 3) & 2047;
  u64 *slots = target_slots.lookup(&index), since = bpf_ktime_get_ns() & ~1ULL;
  if (targets.update(&child, &since) == 0)
    tell_change(PROCESS_FORKED, child, parent);
  else
    count(LOST_TARGETS_FULL, 1);
  if (slots) ((volatile u8 *)slots)[child & 7] = 1;
}

/* A child is a target before it runs its first instruction. Its number is the kernel's own here; what the agent's
 * namespace calls it, only the child can ask, when it leaves the system call that made it. */
int task_is_made(struct new_task *ctx) {
  struct ids ids;
  if (ctx->clone_flags & CLONE_THREAD || !current_target(&ids)) return 0;
  u32 child = ctx->pid;
#ifdef PIDNS_INODE
  newborn.update(&child, &ids.pid);
#else
  adopt(child, ids.pid);
#endif
  return 0;
}

int child_begins(void *ctx) {
  u32 host = bpf_get_current_pid_tgid() >> 32;
  u32 *found = newborn.lookup(&host);
  if (!found) return 0;
  u32 parent = *found;
  newborn.delete(&host);
  struct ids ids;
  if (current_ids(&ids)) adopt(ids.pid, parent);
  return 0;
}
#endif
