"""Stuck lookups on purpose: private namespaces, a scripted DNS server, named faults. For `demo` and tests."""
