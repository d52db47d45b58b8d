"""What DNS says of a name: its CNAME and its texts, asked of DNS_RESOLVERS, else of the machine's own resolvers.

A name that is not there has none of either. Nothing here reads the hosts file: what counts is what everybody is told.
"""

import time
from typing import Any, Final

import dns.exception
import dns.rdatatype
import dns.resolver
from django.conf import settings
from dns.nameserver import Do53Nameserver

# Of one question to all servers, seconds. Servers that take longer are away.
_LIFETIME: Final = 4.0
_TIMEOUT: Final = 2.0


class DnsAwayError(Exception):
    """No name server gave an answer to rely on: silence, a refusal, or a failure of theirs."""


class NoTimeLeftError(DnsAwayError):
    """None gave one until the moment that the caller has time."""


def cname_of(name: str, *, until: float | None = None) -> str:
    """Return where a name's CNAME leads, in lower case without the final dot; empty if it has none.

    `until`: a moment of the monotonic clock, at which the answer comes too late.
    """
    found = [str(record.target) for record in _ask(name, "CNAME", until)]
    return found[0].rstrip(".").lower() if found else ""


def texts_of(name: str, *, until: float | None = None) -> list[str]:
    """Return a name's TXT records, each put together; `until` as above."""
    return [b"".join(record.strings).decode(errors="replace") for record in _ask(name, "TXT", until)]


def _ask(name: str, kind: str, until: float | None) -> list[Any]:
    """Return a name's own records of a kind: what a CNAME leads to is not its own."""
    left = _LIFETIME if until is None else until - time.monotonic()
    if left <= 0:
        raise NoTimeLeftError
    try:
        answer = _resolver().resolve(
            f"{name}.", kind, raise_on_no_answer=False, search=False, lifetime=min(left, _LIFETIME)
        )
    except dns.resolver.NXDOMAIN:
        return []
    except (dns.exception.DNSException, OSError) as fault:
        if isinstance(fault, dns.resolver.LifetimeTimeout) and left < _LIFETIME:
            raise NoTimeLeftError from fault
        raise DnsAwayError(type(fault).__name__) from fault
    if answer.rrset is None:
        return []
    return [record for record in answer.rrset if record.rdtype == dns.rdatatype.from_text(kind)]


def _resolver() -> dns.resolver.Resolver:
    """Return who is asked; nothing is cached, since a person waits for what they have just set."""
    servers = settings.DNS_RESOLVERS
    resolver = dns.resolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [Do53Nameserver(address, port) for address, port in servers]
    resolver.timeout = _TIMEOUT
    return resolver
