"""ebpfdns: why name resolution is stuck, while it is stuck."""

__version__ = "0.1.0"
