"""`python -m ebpfdns` is the `ebpfdns` command."""

from ebpfdns.cli import main

if __name__ == "__main__":
    main()
