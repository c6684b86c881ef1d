/* SPDX-License-Identifier: GPL-2.0 */
/* Registers of a probed thread, as the kernel lays them out for BPF. */
#ifndef EBPFDNS_PTRACE_H
#define EBPFDNS_PTRACE_H

#if defined(__aarch64__) || defined(bpf_target_arm64)
struct user_pt_regs {
  unsigned long long regs[31], sp, pc, pstate;
};
struct pt_regs {
  unsigned long long regs[31], sp, pc, pstate;
};
#else
struct pt_regs {
  unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#endif

#endif
