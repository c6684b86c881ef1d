/* SPDX-License-Identifier: GPL-2.0 */
/* Lookups of goroutines: net.(*Resolver).lookupIPAddr, lookupHost, lookupTXT, …
 *
 * The outermost one of a goroutine is the lookup. It waits for a goroutine that does the work, perhaps together with
 * other callers who want the same name. A numeric address passes here too, as it does through getaddrinfo.
 */

/* Where the name is among the arguments: behind the receiver and the context. */
INLINE void read_go_arguments(struct pt_regs *ctx, struct call *call) {
  u32 at = 3;
  if (call->function == GO_LOOKUP_IP_ADDR) {
    call->service = go_register(ctx, 3);
    call->family = go_register(ctx, 4);
    at = 5;
  } else if (call->function == GO_LOOKUP_SRV) {
    at = 7;
  }
  call->name = go_register(ctx, at);
  call->name_size = go_register(ctx, at + 1);
}

int go_lookup_begins(struct pt_regs *ctx) {
  struct goroutine go = {};
  if (!current_goroutine(ctx, &go)) return 0;
  struct call fresh = {.function = GO_FUNCTION(&go), .api = API_GO, .hints = go.id, .stack = go.at};
  read_go_arguments(ctx, &fresh);
  struct call *own = calls.lookup(&go.key);
  if (own) {
    if (!own->start_ns) return 0; /* it works for another lookup: what it looks up for that is part of it */
    if (own->function != fresh.function) {
      if (own->nested_calls < 255) own->nested_calls++;
      return 0;
    }
    if (own->name == fresh.name && own->name_size == fresh.name_size) return 0; /* the stack has grown */
    u64 flight = own->result;
    end_call(own, go.key, bpf_ktime_get_ns(), STATUS_ABANDONED, 0, 0, 0); /* it left by a panic */
    if (flight) calls.delete(&flight);
  }
  if (!go.ids.pid && !current_ids(&go.ids)) return 0;
  fresh.pid = go.ids.pid;
  fresh.start_ns = bpf_ktime_get_ns();
  if (calls.update(&go.key, &fresh) != 0)
    count(LOST_CALLS_FULL, 1);
  else
    count(LOOKUPS_STARTED, 1);
  return 0;
}

/* Its caller has given up: what the thread does for it in C goes on, and is a lookup of its own from here on. */
INLINE bool is_left_to_thread(struct call *call, u64 key) {
  u64 thread_key = call->code_at;
  struct call *thread = thread_key ? calls.lookup(&thread_key) : NULL;
  if (!thread || !(thread->role & ROLE_JOINED) || thread->code_at != key) return false;
  thread->role = 0;
  thread->code_at = 0;
  count(LOOKUPS_STARTED, 1);
  struct lookup *record = call->has_record ? lookups.lookup(&key) : NULL;
  if (!record || lookups.update(&thread_key, record) != 0) return false;
  struct lookup *left = lookups.lookup(&thread_key);
  if (!left) return false;
  thread->has_record = 1;
  __builtin_memset(left->service, 0, SERVICE_BYTES);
  describe(left, thread, thread_key);
  LOOP (int i = 0; i < MAX_QUERIES; i++) {
    if (i >= left->query_count) break;
    struct query *query = &left->queries[i];
    struct question_key question = {.socket = query->socket, .id = query->id};
    asked.update(&question, &thread_key);
  }
  return true;
}

int go_lookup_ends(struct pt_regs *ctx) {
  struct goroutine go = {};
  if (!current_goroutine(ctx, &go)) return 0;
  struct call *call = calls.lookup(&go.key);
  if (!call || !call->start_ns || call->function != GO_FUNCTION(&go)) return 0;
  u64 now = bpf_ktime_get_ns();
  /* A string, or a slice, or both stand in front of the error: its type, and where it is. */
  u32 at = call->function == GO_LOOKUP_CNAME ? 2 : call->function == GO_LOOKUP_SRV ? 5 : 3;
  bool has_failed = go_register(ctx, at) != 0;
  u64 flight = call->result;
  if (has_failed)
    call->result = go_register(ctx, at + 1) + (go.cookie >> GO_COOKIE_TEXT & 63);
  else
    call->result = go_register(ctx, 0);
  u32 flags = has_failed && is_left_to_thread(call, go.key) ? LOOKUP_GOES_ON : 0;
  end_call(call, go.key, now, has_failed ? STATUS_FAILED : STATUS_OK, go_register(ctx, 1), 0, flags);
  calls.delete(&go.key);
  if (flight) calls.delete(&flight);
  return 0;
}
