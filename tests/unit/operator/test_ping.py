"""Pings against servers of all kinds over real sockets, and what is told of what was seen.

What a real gateway does with one is in tests/lab/test_ping.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import nightmail
from gateway.config import Config
from gateway.crypto.keys import IdentityKey
from gateway.errors import Reason
from gateway.operator import ping as pinging
from gateway.operator import ping_told as telling
from gateway.operator.ping import Ping
from gateway.peers.looks import look_of
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.session.commands import NoteDecision, NoteFact
from gateway.smtp.capability import OfferSize, append_offer

Serve = Callable[[socket.socket], None]
GREETING = b"220 mx.b.test ESMTP\r\n"
REPLY = b"250-mx.b.test greets you\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n"
OLD, NEW = (IdentityKey.from_seed(letter * 32).public for letter in (b"o", b"n"))


@contextlib.contextmanager
def server(*serves: Serve, v6: bool = False) -> Iterator[Destination]:
    """Each connection is served by the next of them; the last one serves all others, too."""
    address = "::1" if v6 else "127.0.0.1"
    listener = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
    listener.bind((address, 0))
    listener.listen()

    def accept() -> None:
        number = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(30)
                serves[min(number, len(serves) - 1)](connection)
            number += 1

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield Destination(address, listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def mail_server(greeting: bytes = GREETING, reply: bytes = REPLY, heard: list[bytes] | None = None) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.sendall(greeting)
        with connection.makefile("rb") as lines:
            while line := lines.readline():
                if heard is not None:
                    heard.append(line)
                if line.upper().startswith(b"QUIT"):
                    connection.sendall(b"221 bye\r\n")
                    return
                connection.sendall(reply if line.upper().startswith(b"EHLO") else b"500 what\r\n")

    return serve


def pinged(destination: Destination, tmp_path: Path, seconds: float = 30.0) -> Ping:
    return pinging.ping(Config(state_dir=tmp_path), destination, seconds)


# --- Without a gateway --------------------------------------------------------------------------------


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_server_without_a_gateway(tmp_path: Path, v6: bool) -> None:
    heard: list[bytes] = []
    with server(mail_server(heard=heard), v6=v6) as destination:
        found = pinged(destination, tmp_path)
    own = b"[IPv6:::1]" if v6 else b"[127.0.0.1]"
    assert heard == [b"EHLO " + own + b"\r\n", b"QUIT\r\n"]
    assert not found.protected
    assert found.decision is not None
    assert found.decision.reason is Reason.NO_OFFER
    assert list(found.seconds) == ["connected", "greeting", "reply", "quit"]
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert (found.offer, found.fits, found.trouble) == (None, OfferSize.FULL, "")
    lines = list(telling.told(found))
    assert lines[0] == f"{destination}: NO, a session is in clear: nobody there offers encryption"
    assert "  server: mx.b.test; announces: PIPELINING SIZE 8BITMIME" in lines
    assert any(line.startswith("  offer: none; one in four sessions") for line in lines)
    assert list(tmp_path.iterdir()) == [], "nothing is remembered"


def test_a_remembered_peer_without_its_offer(tmp_path: Path) -> None:
    with server(mail_server()) as destination:
        with PinStore(tmp_path / "peers.db") as store:
            store.remember(destination, MetPeer(OLD.octets, 20_000, True), 1_800_000_000)
        before = (tmp_path / "peers.db").read_bytes()
        found = pinged(destination, tmp_path)
    assert found.decision is not None
    assert found.decision.reason is Reason.OFFER_MISSING
    assert (tmp_path / "peers.db").read_bytes() == before
    lines = list(telling.told(found))
    assert lines[0].endswith("NO, a session is in clear: offer-missing (docs/messages.md)")
    assert "  peer: one is remembered there, and has not been met (`nightmail peers show`)" in lines
    assert telling.as_json(found)["remembered"] is True


def test_an_offer_that_does_not_verify_is_tried_again_then_told(tmp_path: Path) -> None:
    heard: list[bytes] = []
    offered = append_offer(REPLY, b"x" * OfferSize.FULL.octets)
    with server(mail_server(reply=offered, heard=heard)) as destination:
        found = pinged(destination, tmp_path)
    assert not found.protected
    assert found.offer is OfferSize.FULL
    assert found.decision is not None
    assert found.decision.reason is Reason.HANDSHAKE_FAILED
    assert [one.reason for one in found.failures if one.event == "handshake-failed"]
    assert heard.count(b"QUIT\r\n") == 1, "in clear, and over the last connection alone"
    lines = list(telling.told(found))
    assert "NO, a session is in clear: handshake-failed" in lines[0]
    assert any(line.startswith("  failed: bad-") for line in lines)


@pytest.mark.parametrize(
    ("greeting", "reply", "first"),
    [
        (b"554 no service\r\n", REPLY, "greeting-refused"),
        (b"220 old.test\r\n", b"500 what\r\n", "ehlo-refused"),
        (b"220-one\r\n220-two\r\n220 three\r\n", REPLY, "nobody there offers encryption"),
        (b"220 \x1b[31mred\r\n", REPLY, ""),
        (b"rubbish\r\n", REPLY, ""),
    ],
)
def test_odd_servers(tmp_path: Path, greeting: bytes, reply: bytes, first: str) -> None:
    with server(mail_server(greeting, reply)) as destination:
        found = pinged(destination, tmp_path)
    lines = list(telling.told(found))
    assert not found.protected
    assert lines[0].startswith(f"{destination}: NO, ")
    assert first in lines[0]
    assert all(line.isascii() and line.isprintable() for line in lines)
    json.dumps(telling.as_json(found))


def test_a_server_that_does_not_greet_is_told_quit_alone(tmp_path: Path) -> None:
    """Its answer to that is no reply to EHLO, and its end behind it no trouble."""
    heard: list[bytes] = []
    with server(mail_server(b"554 no service\r\n", heard=heard)) as destination:
        found = pinged(destination, tmp_path)
    assert heard == [b"QUIT\r\n"]
    assert list(found.seconds) == ["connected", "greeting", "quit"]
    assert found.trouble == ""


# --- No session at all --------------------------------------------------------------------------------


def refused() -> Destination:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return Destination("127.0.0.1", trial.getsockname()[1])


def test_a_refused_port(tmp_path: Path) -> None:
    found = pinged(refused(), tmp_path)
    assert list(telling.told(found)) == [f"{found.destination}: NO, no session: Connection refused"]
    assert telling.as_json(found)["trouble"] == "Connection refused"


def silent(connection: socket.socket) -> None:
    connection.recv(100)


def silent_behind(said: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.sendall(said)
        while connection.recv(1000):
            pass

    return serve


def dripping(connection: socket.socket) -> None:
    """A greeting that never ends: each line resets nobody's patience."""
    gone = threading.Event()
    while not gone.wait(0.02):
        connection.sendall(b"220-still here\r\n")


@pytest.mark.parametrize(
    ("serve", "waits"),
    [
        (silent, "waiting for the greeting"),
        (silent_behind(GREETING), "waiting for the reply to EHLO"),
        (dripping, ""),
    ],
)
def test_silence_ends_with_the_time(tmp_path: Path, serve: Serve, waits: str) -> None:
    with server(serve) as destination:
        found = pinged(destination, tmp_path, 3.0)
    assert not found.protected
    assert found.trouble.startswith("no answer in time, ")
    assert waits in found.trouble
    assert "NO, " in next(iter(telling.told(found)))


@pytest.mark.parametrize("said", [b"", b"220-half a gree", GREETING])
def test_a_server_that_goes_away(tmp_path: Path, said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100)

    with server(serve) as destination:
        found = pinged(destination, tmp_path)
    assert not found.protected
    assert found.trouble
    assert len(list(telling.told(found))) >= 1


@given(said=st.binary(max_size=300), chunks=st.integers(1, 40))
def test_whatever_a_server_says_it_ends_with_an_answer(said: bytes, chunks: int) -> None:
    def serve(connection: socket.socket) -> None:
        for at in range(0, len(said), chunks):
            connection.sendall(said[at : at + chunks])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass

    with server(serve) as destination:
        found = pinged(destination, Path("/nonexistent"), 5.0)
    assert not found.protected
    assert all(line.isascii() and line.isprintable() for line in telling.told(found))


# --- What is told -------------------------------------------------------------------------------------


class Peer:
    """In place of a verified peer, which only a channel makes."""

    def __init__(self, form: str = "full", epoch: int = 20_000) -> None:
        from gateway.crypto.messages import OfferFlags, OfferForm

        self.identity, self.epoch = OLD, epoch
        self.form = OfferForm.FULL if form == "full" else OfferForm.SHORT
        self.flags = OfferFlags.NONE


def met(**keys: object) -> Ping:
    steps = {"connected": 0.001, "greeting": 0.002, "reply": 0.003, "channel": 0.004, "quit": 0.005}
    found = Ping(
        Destination("192.0.2.7", 25),
        seconds=steps,
        look=look_of(b"mx.b.test", REPLY),
        offer=OfferSize.FULL,
        fits=OfferSize.FULL,
        decision=NoteDecision(True, Reason.UPGRADED),
        peer=Peer(),  # type: ignore[arg-type]
        sent=3000,
        received=700,
    )
    return replace(found, **keys)  # type: ignore[arg-type]


def remembered(tmp_path: Path, identity: bytes) -> Ping:
    with PinStore(tmp_path / "peers.db") as store:
        store.remember(Destination("192.0.2.7", 25), MetPeer(identity, 20_000, True), 1_800_000_000)
        return met(pin=store.lookup(Destination("192.0.2.7", 25)))


def test_a_protected_session_in_words(tmp_path: Path) -> None:
    lines = list(telling.told(remembered(tmp_path, OLD.octets)))
    assert lines[:2] == [
        "192.0.2.7:25: YES, a session is protected",
        "  times: connected 1.0 ms, greeting 2.0 ms, reply to EHLO 3.0 ms, channel 4.0 ms,"
        " answer to QUIT 5.0 ms; 15.0 ms in all",
    ]
    assert "  offer: hybrid, X25519 and ML-KEM-768" in lines
    assert f"  peer: {OLD.fingerprint}" in lines
    assert "        the remembered one" in lines
    assert lines[-1] == "  padding: from the verb on 3000 octets went out, of which QUIT is 6; 700 came back"


def test_whose_identity_it_is(tmp_path: Path) -> None:
    assert any("NOT THE REMEMBERED ONE" in line for line in telling.told(remembered(tmp_path, NEW.octets)))
    assert any("nobody is remembered" in line for line in telling.told(met()))
    unread = met(memory_trouble="Permission denied")
    assert any("cannot be read: Permission denied" in line for line in telling.told(unread))
    assert telling.as_json(unread)["peer"]["standing"] is None
    assert telling.as_json(met())["peer"]["standing"] == "unpinned"


def test_weaker_is_told_from_no_room() -> None:
    weaker = list(telling.told(met(offer=OfferSize.SHORT, peer=Peer("short"))))
    assert any(line.startswith("  offer: WEAKER") for line in weaker)
    no_room = list(telling.told(met(offer=OfferSize.SHORT, fits=OfferSize.SHORT, peer=Peer("short"))))
    assert any("there is no room for the hybrid one" in line for line in no_room)
    assert telling.as_json(met(peer=Peer("short")))["peer"]["hybrid"] is False


def test_a_channel_without_an_answer_is_not_protected() -> None:
    broken = met(seconds={"connected": 0.1, "channel": 0.1}, trouble="no answer in time")
    assert not broken.protected
    assert next(iter(telling.told(broken))) == "192.0.2.7:25: NO, no session: no answer in time"


def test_what_failed_is_told_escaped() -> None:
    facts = [NoteFact("handshake-failed", Reason.BAD_TAG, "said \x1b[31m"), NoteFact("note")]
    lines = list(telling.told(met(failures=facts)))
    assert lines[-1] == "  failed: bad-tag said \\x1b[31m"


# --- The command --------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "nightmail.toml"
    file.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\n')
    at = str(refused())
    runner = CliRunner()
    done = runner.invoke(nightmail, ["--config", str(file), "ping", at])
    assert (done.exit_code, done.stdout) == (1, f"{at}: NO, no session: Connection refused\n")
    done = runner.invoke(nightmail, ["--config", str(file), "ping", at, "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["protected"] is False
    for words in (["ping"], ["ping", at, "--seconds", "0"], ["ping", at, "--seconds", "soon"]):
        assert runner.invoke(nightmail, ["--config", str(file), *words]).exit_code == 2
    done = runner.invoke(nightmail, ["--config", str(file), "ping", "no name\n"])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)


def test_the_limits_of_what_is_shown() -> None:
    many = b"250-mx\r\n" + b"".join(b"250-X%d%b\r\n" % (n, b"y" * 100) for n in range(100)) + b"250 END\r\n"
    line = next(one for one in telling.told(met(look=look_of(b"h" * 300, many))) if "server" in one)
    assert len(line) < (limits.PING_KEYWORDS + 1) * (limits.PING_TEXT_OCTETS + 1) + 50


def test_an_offer_with_a_ticket_of_the_mail_server_s_gateway_is_not_taken_for_a_weaker_one(
    tmp_path: Path,
) -> None:
    """On a mail server both come from one address: R offers the ticket, and the next dial's offer counts."""
    ticket = append_offer(REPLY, b"x" * OfferSize.RESUMED.octets)
    spoilt = append_offer(REPLY, b"x" * OfferSize.FULL.octets)
    with server(mail_server(reply=ticket), mail_server(reply=spoilt)) as destination:
        found = pinged(destination, tmp_path)
    assert found.failures[0].reason is Reason.TICKET_UNKNOWN
    assert found.offer is OfferSize.FULL
    assert "WEAKER" not in "\n".join(telling.told(found))
