/* SPDX-License-Identifier: GPL-2.0 */
/* Only tracing programs of the time before 5.0 are checked against it; 5.10 is the oldest kernel we support. */
#define LINUX_VERSION_CODE 330240
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
