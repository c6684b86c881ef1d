"""Plain values: what the kernel says, decoded, and what it is about. Pure; the mirror of bpf/events.h."""
