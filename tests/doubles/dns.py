"""A name server on the loopback interface: answers over UDP, in DNS's wire format, from records that a test sets."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class NameServer:
    """Records by name and kind, in zone files' spelling; a name without any does not exist."""

    port: int = 0
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    rcode: int = 0  # what every question is answered with, where it is not 0
    is_silent: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    def set(self, kind: str, name: str, *values: str) -> None:
        """Put records in place of those there were."""
        self.records[name, kind] = list(values)

    def answer(self, wire: bytes) -> bytes:
        """Return the answer to a question."""
        question = dns.message.from_wire(wire)
        said = dns.message.make_response(question, recursion_available=True)
        [asked] = question.question
        name, kind = asked.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(asked.rdtype)
        self.asked.append((name, kind))
        if self.rcode:
            said.set_rcode(dns.rcode.Rcode(self.rcode))
            return said.to_wire()
        while (name, kind) not in self.records and (name, "CNAME") in self.records:
            [target] = self.records[name, "CNAME"]
            said.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", f"{target}."))
            name = target
        if values := self.records.get((name, kind)):
            shown = [f"{value}." if kind == "CNAME" else value for value in values]
            said.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *shown))
        elif all(known != name for known, _kind in self.records):
            said.set_rcode(dns.rcode.NXDOMAIN)
        return said.to_wire()


@contextmanager
def running_name_server() -> Iterator[NameServer]:
    """Answer questions on a free port until the block ends."""
    server = NameServer()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))
        server.port = door.getsockname()[1]

        def serve() -> None:
            while True:
                wire, whom = door.recvfrom(4096)
                if not wire:
                    return
                if not server.is_silent:
                    with suppress(OSError):
                        door.sendto(server.answer(wire), whom)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", ("127.0.0.1", server.port))
            thread.join()
