/* SPDX-License-Identifier: GPL-2.0 */
/* Who is running, and whether it is one of the processes we were asked to trace.
 *
 * `host` numbers are keys inside the kernel; `pid` and `tid` are what the agent's pid namespace calls them, and
 * what people read. Where the agent lives in a namespace of its own the two differ.
 */

struct ids {
  u64 host; /* host pid << 32 | host tid */
  u32 pid;
  u32 tid;
  u32 is_supporting; /* only set by current_party */
};

INLINE bool current_ids(struct ids *ids) {
  ids->host = bpf_get_current_pid_tgid();
#ifdef PIDNS_INODE
  struct bpf_pidns_info inside = {};
  if (bpf_get_ns_current_pid_tgid(PIDNS_DEVICE, PIDNS_INODE, &inside, sizeof(inside)) != 0) return false;
  ids->pid = inside.tgid;
  ids->tid = inside.pid;
#else
  ids->pid = ids->host >> 32;
  ids->tid = (u32)ids->host;
#endif
  return true;
}

/* Nearly always the table says no. It knows pids modulo 16,384, so a yes may be somebody else's. */
INLINE bool may_be_target(u32 pid) {
  int index = (pid >> 3) & 2047;
  u64 *slots = target_slots.lookup(&index);
  return slots && ((u8 *)slots)[pid & 7];
}

/* In `targets`: a daemon that targets ask. What it asks itself is seen; its calls and waits are not. */
#define TARGET_IS_SUPPORTING (1ULL << 63)

INLINE bool is_target(u32 pid) {
  if (!may_be_target(pid)) return false;
  u64 *since = targets.lookup(&pid);
  return since && !(*since & TARGET_IS_SUPPORTING);
}

/* Whether this target has Go's own resolver, and its lookups are seen: the lowest bit of its time. */
#define TARGET_RESOLVES_IN_GO 1
INLINE bool resolves_in_go(u32 pid) {
  u64 *since = targets.lookup(&pid);
  return since && *since & TARGET_RESOLVES_IN_GO;
}

INLINE bool current_target(struct ids *ids) { return current_ids(ids) && is_target(ids->pid); }

/* A target, or a daemon that is followed. */
INLINE bool current_party(struct ids *ids) {
  if (!current_ids(ids) || !may_be_target(ids->pid)) return false;
  u64 *since = targets.lookup(&ids->pid);
  if (!since) return false;
  ids->is_supporting = *since >> 63;
  return true;
}
