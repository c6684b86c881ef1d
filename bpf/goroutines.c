/* SPDX-License-Identifier: GPL-2.0 */
/* Which goroutine is running, what Go's functions were called with, and for which lookup a goroutine works.
 *
 * Go's own calling convention: numbers in registers, structs with arrays on the stack. A probe may fire twice for one
 * call, at its entry again after the stack has grown. Goroutines move between threads, so each has an entry of its
 * own in `calls`, by its id, which is never used again. A goroutine that works for a lookup was made by the one that
 * is in it, or by one that works for it; newer versions of Go remember who made each.
 */

#if defined(bpf_target_x86)
#define GOROUTINE(ctx) ((ctx)->r14)
#else
#define GOROUTINE(ctx) ((ctx)->regs[28])
#endif
#define GO_NO_REGISTER 31

/* The verifier wants each read at a place of its own, so the compiler must not make one of them. */
#define READ(n, where) \
  case n:              \
    value = ctx->where; \
    UNKNOWN(value);    \
    break;

/* The nth register of arguments, or of results. */
INLINE u64 go_register(struct pt_regs *ctx, u32 n) {
  u64 value = 0;
#if defined(bpf_target_x86)
  switch (n) {
    READ(0, ax)
    READ(1, bx)
    READ(2, cx)
    READ(3, di)
    READ(4, si)
    READ(5, r8)
    READ(6, r9)
    READ(7, r10)
    READ(8, r11)
  }
#else
  switch (n) {
    READ(0, regs[0])
    READ(1, regs[1])
    READ(2, regs[2])
    READ(3, regs[3])
    READ(4, regs[4])
    READ(5, regs[5])
    READ(6, regs[6])
    READ(7, regs[7])
    READ(8, regs[8])
    READ(9, regs[9])
    READ(10, regs[10])
    READ(11, regs[11])
  }
#endif
  return value;
}

/* What was passed on the stack begins behind the return address, or where it would be saved. */
#define GO_STACK(ctx) (PT_REGS_SP(ctx) + 8)

struct goroutine {
  u64 key;
  u64 id;
  u64 at; /* its struct g */
  u64 cookie;
  struct ids ids;
};

#define GO_FUNCTION(go) ((u8)(go)->cookie)

/* Who runs; false when it is not known, or not a target. */
INLINE bool current_goroutine(struct pt_regs *ctx, struct goroutine *go) {
#ifdef FILTER_CALLS
  if (!current_target(&go->ids)) return false;
#else
  go->ids.host = bpf_get_current_pid_tgid();
#endif
  go->cookie = attach_cookie(ctx);
  go->at = GOROUTINE(ctx);
  go->id = 0;
  if (read_user(&go->id, sizeof(go->id), (void *)go->at + (go->cookie >> GO_COOKIE_ID & 0xFFF)) != 0) {
    count(LOST_MEMORY_UNREAD, 1);
    return false;
  }
  if (!go->id) return false;
  go->key = GO_KEY(go->ids.host >> 32, go->id);
  return true;
}

/* The entry of the goroutine that made this one; NULL when it does nothing for a lookup, or is not known. */
INLINE struct call *maker_of(struct goroutine *go, u64 *key) {
  u64 offset = go->cookie >> GO_COOKIE_PARENT & 0xFFF, id = 0;
  if (!offset || read_user(&id, sizeof(id), (void *)go->at + offset) != 0 || !id) return NULL;
  *key = GO_KEY(go->ids.host >> 32, id);
  return calls.lookup(key);
}

/* The key of the lookup that this goroutine works for; 0: of none that is known. */
INLINE u64 lookup_of(struct goroutine *go, struct call *own) {
  if (own && own->start_ns) return go->key;
  if (own && own->role) return own->result;
  u64 key = 0;
  struct call *maker = maker_of(go, &key);
  if (!maker) return 0;
  if (maker->role & ROLE_FLIGHT) return maker->result;
  /* Those that ask with goroutines of their own; what the maker's goroutine has made before does not count. */
  if (maker->start_ns && (maker->function == GO_LOOKUP_HOST || maker->function == GO_LOOKUP_CNAME)) return key;
  return 0;
}

/* An entry for a goroutine that has none; NULL: no room. */
INLINE struct call *new_goroutine(struct goroutine *go, u8 role, u64 result) {
  if (!go->ids.pid && !current_ids(&go->ids)) return NULL;
  struct call fresh = {.pid = go->ids.pid, .role = role, .result = result};
  if (calls.update(&go->key, &fresh) != 0) {
    count(LOST_CALLS_FULL, 1);
    return NULL;
  }
  return calls.lookup(&go->key);
}

/* What a goroutine's lookup calls in C: getaddrinfo and its like, with the name first. The next call with that very
 * name, of whichever thread, is part of the lookup. */
int go_calls_libc(struct pt_regs *ctx) {
  struct goroutine go = {};
  if (!current_goroutine(ctx, &go)) return 0;
  u64 key = lookup_of(&go, calls.lookup(&go.key)), name = user_word(GO_STACK(ctx));
  struct call *call = key ? calls.lookup(&key) : NULL;
  if (!call || !call->start_ns || !name) return 0;
  struct awaited_key awaited_as = {.host_pid = go.ids.host >> 32, .name = name};
  int zero = 0;
  u64 *latest = awaited_latest.lookup(&zero);
  if (latest && awaited.update(&awaited_as, &key) == 0) *latest = bpf_ktime_get_ns();
  return 0;
}

/* A goroutine begins to work for a lookup that others may wait for, too. It is forgotten with that lookup: a probe at
 * a return costs more than all the others. */
int go_flight_begins(struct pt_regs *ctx) {
  struct goroutine go = {};
  if (!current_goroutine(ctx, &go) || calls.lookup(&go.key)) return 0; /* the caller itself, or the stack has grown */
  u64 key = 0;
  struct call *maker = maker_of(&go, &key);
  if (!maker || !maker->start_ns || maker->function != GO_LOOKUP_IP_ADDR) return 0;
  if (new_goroutine(&go, ROLE_FLIGHT, key)) maker->result = go.key;
  return 0;
}
