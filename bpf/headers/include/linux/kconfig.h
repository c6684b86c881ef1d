/* SPDX-License-Identifier: GPL-2.0 */
/* What BCC asks of a kernel configuration. */
#define CONFIG_BPF_SYSCALL 1
