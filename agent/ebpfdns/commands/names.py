"""Names and addresses on the command line.

Owns: which of them can be asked for, and asked. Must not know: which option they are for.
"""

from __future__ import annotations

import ipaddress

import click


class LookedUpName(click.ParamType[str]):
    """A domain name that fits into a question."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name; a usage error when it is none."""
        import dns.exception  # noqa: PLC0415 - only for those who give a name
        import dns.name  # noqa: PLC0415

        text = str(value)
        try:
            if not text.isprintable() or len(dns.name.from_text(text).labels) < 2:  # noqa: PLR2004 - and the root
                raise dns.name.EmptyLabel
        except (dns.exception.DNSException, UnicodeError):
            self.fail(f"{text!r} is no name that can be looked up", param, ctx)
        return text


class Address(click.ParamType[str]):
    """An IPv4 or IPv6 address."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address; a usage error when it is none."""
        try:
            ipaddress.ip_address(str(value).partition("%")[0])
        except ValueError:
            self.fail(f"{value!r} is no IP address", param, ctx)
        return str(value)
