/* SPDX-License-Identifier: GPL-2.0 */
/* Library calls that look something up: getaddrinfo, gethostby*, getnameinfo, res_*.
 *
 * The outermost call of a thread is the lookup; what it calls inside itself is nested. A call keeps only pointers:
 * its name is copied when the lookup begins to matter (it asks a server, or ends slowly or badly). So a lookup that
 * is answered from memory costs two clock readings and a hash look-up or two.
 */

#if defined(bpf_target_x86)
#define RETURN_POPS 8 /* the return address has left the stack when the function has returned */
#define SEVENTH_ARGUMENT(ctx) user_word(PT_REGS_SP(ctx) + 8)
#define EIGHTH_ARGUMENT(ctx) user_word(PT_REGS_SP(ctx) + 16)
#else
#define RETURN_POPS 0
#define SEVENTH_ARGUMENT(ctx) ((ctx)->regs[6])
#define EIGHTH_ARGUMENT(ctx) ((ctx)->regs[7])
#endif

#define ERANGE 34
#define RES_H_ERRNO_OFFSET 496 /* of struct __res_state, 64 bit glibc */

INLINE void count_end(u8 status) {
  count(status == STATUS_OK       ? LOOKUPS_OK
        : status == STATUS_FAILED ? LOOKUPS_FAILED
        : status == STATUS_UNSEEN ? LOOKUPS_UNSEEN
                                  : LOOKUPS_ABANDONED,
        1);
}

/* The one way a call ends. `returned` is the function's own value, meaningful when it did return. */
INLINE void end_call(struct call *call, u64 key, u64 now, u8 status, u64 returned, int code, u32 flags) {
  u64 took_ns = now - call->start_ns;
  count_end(status);
  if (status != STATUS_ABANDONED && !call->is_earlier) observe(LATENCY_LOOKUP, took_ns);
  if (call->has_record) {
    /* A resolver's own polls are no event loop. */
    struct wait *wait = waits.lookup(&key);
    if (wait && wait->last_fd < 0) wait->returns = 0;
    struct lookup *record = lookups.lookup(&key);
    if (record) {
      record->end_ns = now;
      record->status = status;
      record->code = code;
      record->flags |= flags;
      record->nested_calls = call->nested_calls;
      record->descriptor_error = call->descriptor_error;
      if (status == STATUS_OK) {
        read_addresses(record, call, returned);
        remember_given(record);
      } else if (status == STATUS_FAILED && IS_OF_GO(call)) {
        read_go_error(record, call->result);
      }
      if (!(flags & LOOKUP_GOES_ON)) settle_questions(record);
      if (IS_OF_GO(call)) forget_free_places(record);
      KEEP_IN_MEMORY();
      tell_and_forget(record, key, is_worth_telling(record->status, took_ns));
    }
  } else if (is_worth_telling(status, took_ns)) {
    /* It never asked anybody, or there was no room: a record without queries, straight into the ring. */
    struct lookup *record = frames.ringbuf_reserve(sizeof(struct lookup) - MAX_QUERIES * sizeof(struct query));
    if (record) {
      __builtin_memset(record, 0, sizeof(struct lookup) - MAX_QUERIES * sizeof(struct query));
      describe(record, call, key);
      record->end_ns = now;
      record->status = status;
      record->code = code;
      record->flags |= flags;
      if (status == STATUS_OK) read_addresses(record, call, returned);
      if (status == STATUS_FAILED && IS_OF_GO(call)) read_go_error(record, call->result);
      frames.ringbuf_submit(record, 0);
      count(FRAMES_SUBMITTED, 1);
    } else {
      count(LOST_RING_FULL, 1);
    }
  }
  call->has_record = 0;
  call->is_paused = 0;
  call->start_ns = 0;
}

INLINE struct call *new_call(struct ids *ids) {
  struct call fresh = {.pid = ids->pid, .tid = ids->tid};
  if (calls.update(&ids->host, &fresh) != 0) {
    count(LOST_CALLS_FULL, 1);
    return NULL;
  }
  return calls.lookup(&ids->host);
}

struct arguments {
  u64 name, service, hints, result, code_at;
  u32 family, name_size;
};

/* An entry that finds a call of its thread still open is rare, and what to do then is long: it is one program of its
 * own, which the entries jump to. What they know goes along in this map. */
struct entry {
  struct arguments given_to;
  u64 api;
  struct call earlier;
};
BPF_PERCPU_ARRAY(entries, struct entry, 1);
BPF_PROG_ARRAY(rare_programs, 1);

INLINE void fill_call(struct pt_regs *ctx, struct call *call, u8 api, struct arguments *given_to) {
  call->stack = PT_REGS_SP(ctx);
  call->name = given_to->name;
  call->service = given_to->service;
  call->hints = given_to->hints;
  call->result = given_to->result;
  call->code_at = given_to->code_at;
  call->family = given_to->family;
  call->name_size = given_to->name_size;
  call->api = api;
  call->nested_calls = 0;
  call->descriptor_error = 0;
  call->role = 0;
  call->start_ns = bpf_ktime_get_ns();
}

INLINE void start_call(struct pt_regs *ctx, struct call *call, u8 api, struct arguments *given_to) {
  count(LOOKUPS_STARTED, 1);
  fill_call(ctx, call, api, given_to);
}

INLINE int call_begins(struct pt_regs *ctx, u8 api, struct arguments given_to) {
  struct ids ids;
#ifdef FILTER_CALLS
  if (!current_target(&ids)) return 0;
#else
  ids.host = bpf_get_current_pid_tgid();
#endif
  struct call *call = calls.lookup(&ids.host);
  bool is_rare = call && (call->start_ns || call->role);
  if (!call) {
    if (!current_ids(&ids)) return 0;
    u64 earlier_key = EARLIER_KEY(ids.host);
    is_rare = calls.lookup(&earlier_key) != NULL;
    call = new_call(&ids);
    if (!call) return 0;
  }
  int zero = 0;
  u64 *latest = awaited_latest.lookup(&zero);
  if (latest && *latest && bpf_ktime_get_ns() - *latest < AWAITED_FOR_NS) is_rare = true;
  if (is_rare) {
    struct entry *entry = entries.lookup(&zero);
    if (!entry) return 0;
    entry->given_to = given_to;
    entry->api = api;
    rare_programs.call(ctx, 0);
    return 0;
  }
  start_call(ctx, call, api, &given_to);
  return 0;
}

/* Cgo makes this call for a goroutine's lookup, which it is then part of. */
INLINE bool joins_goroutine(struct pt_regs *ctx, struct call *call, u64 key, struct entry *entry) {
  struct awaited_key awaited_as = {.host_pid = key >> 32, .name = entry->given_to.name};
  u64 *found = awaited.lookup(&awaited_as);
  if (!found) return false;
  u64 owner_key = *found;
  awaited.delete(&awaited_as);
  struct call *owner = calls.lookup(&owner_key);
  if (!owner || !owner->start_ns) return false;
  fill_call(ctx, call, entry->api, &entry->given_to);
  call->code_at = owner_key;
  call->role = ROLE_JOINED;
  owner->api = API_CGO;
  owner->tid = call->tid;
  owner->code_at = key;
  return true;
}

/* A call of this thread is open, or was when tracing began: this one is nested in it, continues it, or shows that it
 * has ended. Or it may be for a goroutine. */
int call_begins_in_open_call(struct pt_regs *ctx) {
  u64 key = bpf_get_current_pid_tgid();
  int zero = 0;
  struct entry *entry = entries.lookup(&zero);
  struct call *call = calls.lookup(&key);
  if (!entry || !call) return 0;
  u64 stack = PT_REGS_SP(ctx), open_key = key;
  u8 status = STATUS_ABANDONED;
  int code = 0;
  u32 flags = 0;
  struct call *open = call;
  if (!call->start_ns) {
    if (joins_goroutine(ctx, call, key, entry)) return 0;
    open_key = EARLIER_KEY(key);
    struct call *earlier = calls.lookup(&open_key);
    if (!earlier) {
      start_call(ctx, call, entry->api, &entry->given_to);
      return 0;
    }
    /* Where its frame is known, what it has called lies below it. Its slot is there again at its next call. */
    if (earlier->stack && stack < earlier->stack) {
      if (earlier->nested_calls < 255) earlier->nested_calls++;
      calls.delete(&key);
      return 0;
    }
    entry->earlier = *earlier;
    open = &entry->earlier;
    status = STATUS_UNSEEN;
  } else if (call->is_paused) {
    if (call->api == entry->api && call->name == entry->given_to.name) {
      /* The caller comes back with a larger buffer, as it was told to: the same lookup goes on. */
      call->is_paused = 0;
      call->stack = stack;
      call->result = entry->given_to.result;
      call->code_at = entry->given_to.code_at;
      return 0;
    }
    status = STATUS_FAILED;
    code = ERANGE;
    flags = LOOKUP_CODE_IS_KNOWN;
  } else if (stack < call->stack || (stack == call->stack && entry->api != call->api)) {
    /* Stacks grow downwards: what the open call has called lies below it, or at it after a tail call. */
    if (call->nested_calls < 255) call->nested_calls++;
    return 0;
  }
  /* Not paused: the open call has left its stack frame without returning (longjmp). */
  bool is_part = call->role & ROLE_JOINED;
  if (is_part)
    call->start_ns = 0;
  else if (open_key == key || calls.delete(&open_key) == 0)
    end_call(open, open_key, bpf_ktime_get_ns(), status, 0, code, flags);
  start_call(ctx, call, entry->api, &entry->given_to);
  return 0;
}

/* The goroutine has its answer, and ends its lookup by itself. */
INLINE void joined_call_returns(struct call *call, u64 key) {
  u64 owner_key = call->code_at;
  struct call *owner = calls.lookup(&owner_key);
  if (owner && owner->code_at == key) owner->code_at = 0;
  struct wait *wait = waits.lookup(&key);
  if (wait && wait->last_fd < 0) wait->returns = 0; /* a resolver's own polls are no event loop */
  call->role = 0;
  call->start_ns = 0;
}

int call_returns(struct pt_regs *ctx) {
  u64 key = bpf_get_current_pid_tgid();
  struct call *call = calls.lookup(&key);
  if (!call || !call->start_ns || call->is_paused) return 0;
  /* Only the outermost call stands at this height of the stack. */
  if (PT_REGS_SP(ctx) != call->stack + RETURN_POPS) return 0;
  if (call->role & ROLE_JOINED) {
    joined_call_returns(call, key);
    return 0;
  }
  u64 now = bpf_ktime_get_ns();
  u64 returned = PT_REGS_RC(ctx);
  u8 api = call->api;
  int code = (int)returned;
  u8 status = STATUS_OK;
  u32 flags = 0;
  if (api == API_GETADDRINFO || api == API_GETNAMEINFO) {
    flags = LOOKUP_CODE_IS_KNOWN;
    if (code != 0) status = STATUS_FAILED;
  } else if (api == API_GETHOSTBYNAME || api == API_GETHOSTBYNAME2 || api == API_GETHOSTBYADDR) {
    code = 0;
    if (!returned) status = STATUS_FAILED;
  } else if (api >= API_RES_QUERY) {
    if (code < 0) {
      status = STATUS_FAILED;
      code = 0;
      if (call->code_at && read_user(&code, sizeof(code), (void *)call->code_at) == 0)
        flags = LOOKUP_CODE_IS_KNOWN;
    }
  } else {
    if (code == ERANGE) {
      call->is_paused = 1;
      return 0;
    }
    code = 0;
    if (!user_word(call->result)) {
      status = STATUS_FAILED;
      if (read_user(&code, sizeof(code), (void *)call->code_at) == 0) flags = LOOKUP_CODE_IS_KNOWN;
    }
  }
  end_call(call, key, now, status, returned, code, flags);
  return 0;
}

/* Where each function has its arguments. */

INLINE struct arguments arguments_of(struct pt_regs *ctx, u64 api) {
  struct arguments given_to = {.name = PT_REGS_PARM1(ctx)};
  switch (api) {
    case API_GETADDRINFO:
      given_to.service = PT_REGS_PARM2(ctx);
      given_to.hints = PT_REGS_PARM3(ctx);
      given_to.result = PT_REGS_PARM4(ctx);
      break;
    case API_GETHOSTBYNAME:
      given_to.family = AF_INET;
      break;
    case API_GETHOSTBYNAME2:
      given_to.family = (u32)PT_REGS_PARM2(ctx);
      break;
    case API_GETHOSTBYNAME_R:
      given_to.family = AF_INET;
      given_to.result = PT_REGS_PARM5(ctx);
      given_to.code_at = PT_REGS_PARM6(ctx);
      break;
    case API_GETHOSTBYNAME2_R:
      given_to.family = (u32)PT_REGS_PARM2(ctx);
      given_to.result = PT_REGS_PARM6(ctx);
      given_to.code_at = SEVENTH_ARGUMENT(ctx);
      break;
    case API_GETHOSTBYADDR:
      given_to.name_size = (u32)PT_REGS_PARM2(ctx);
      given_to.family = (u32)PT_REGS_PARM3(ctx);
      break;
    case API_GETHOSTBYADDR_R:
      given_to.name_size = (u32)PT_REGS_PARM2(ctx);
      given_to.family = (u32)PT_REGS_PARM3(ctx);
      given_to.result = SEVENTH_ARGUMENT(ctx);
      given_to.code_at = EIGHTH_ARGUMENT(ctx);
      break;
    case API_GETNAMEINFO:
      given_to.name_size = (u32)PT_REGS_PARM2(ctx);
      break;
    case API_RES_NQUERY:
    case API_RES_NSEARCH:
    case API_RES_NSEND: /* with a state of the caller's own: the error code lies in it */
      given_to.name = PT_REGS_PARM2(ctx);
      given_to.code_at = PT_REGS_PARM1(ctx) + RES_H_ERRNO_OFFSET;
      break;
  }
  return given_to;
}

/* One program for all functions of a library, told apart by the number given when it was attached. */
int library_call_begins(struct pt_regs *ctx) {
  u64 api = attach_cookie(ctx);
  return call_begins(ctx, api, arguments_of(ctx, api));
}

/* Kernels without such numbers need a program for each function. */
#define ENTRY(function, api) \
  int function(struct pt_regs *ctx) { return call_begins(ctx, api, arguments_of(ctx, api)); }
ENTRY(getaddrinfo_begins, API_GETADDRINFO)
ENTRY(gethostbyname_begins, API_GETHOSTBYNAME)
ENTRY(gethostbyname2_begins, API_GETHOSTBYNAME2)
ENTRY(gethostbyname_r_begins, API_GETHOSTBYNAME_R)
ENTRY(gethostbyname2_r_begins, API_GETHOSTBYNAME2_R)
ENTRY(gethostbyaddr_begins, API_GETHOSTBYADDR)
ENTRY(gethostbyaddr_r_begins, API_GETHOSTBYADDR_R)
ENTRY(getnameinfo_begins, API_GETNAMEINFO)
ENTRY(res_query_begins, API_RES_QUERY)
ENTRY(res_search_begins, API_RES_SEARCH)
ENTRY(res_send_begins, API_RES_SEND)
ENTRY(res_nquery_begins, API_RES_NQUERY)
ENTRY(res_nsearch_begins, API_RES_NSEARCH)
ENTRY(res_nsend_begins, API_RES_NSEND)
