"""How a server looked: what is kept of a reply, and how few looks are kept."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.peers.looks import Look, look_of, with_look
from gateway.policy import limits
from tests.unit.peers.pinned import NOW

REPLY = (
    b"250-mx.b.example greets mail.a.example [192.0.2.1]\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n"
    b"250 auth PLAIN LOGIN\r\n"
)


def test_names_and_keywords_in_order_and_nothing_of_the_client() -> None:
    look = look_of(b"mx.b.example", REPLY)
    assert look == Look(b"MX.B.EXAMPLE", (b"PIPELINING", b"SIZE", b"AUTH"))
    assert look == look_of(b"MX.b.example", REPLY.replace(b"mail.a.example [192.0.2.1]", b"other.a.example"))


def test_a_servers_own_name_is_kept_up_to_a_bound() -> None:
    assert look_of(b"m" * 2000, REPLY).host == b"M" * limits.NAME_OCTETS


def test_a_reply_is_kept_up_to_a_bound_and_is_known_again() -> None:
    """The longest that passes for one has 16 KB, and each server has four such looks on disk."""
    reply = b"250-mx\r\n" + b"".join(b"250-X%d\r\n" % number for number in range(2000)) + b"250 END\r\n"
    look = look_of(b"mx", reply)
    assert look.keywords[:2] == (b"X0", b"X1")
    assert sum(map(len, look.keywords)) <= limits.LOOK_OCTETS
    assert look == look_of(b"mx", reply)


def test_a_reply_of_one_line_has_no_keyword() -> None:
    assert look_of(b"mx", b"250 mx\r\n") == Look(b"MX", ())
    assert look_of(b"mx", b"250-mx\r\n250-\r\n250 8BITMIME\r\n").keywords == (b"8BITMIME",)


def test_order_tells_two_looks_apart() -> None:
    assert look_of(b"mx", b"250-mx\r\n250-A\r\n250 B\r\n") != look_of(b"mx", b"250-mx\r\n250-B\r\n250 A\r\n")


def test_a_known_look_is_the_very_same_object() -> None:
    looks = with_look((), look_of(b"mx", REPLY), NOW)
    assert with_look(looks, look_of(b"mx", REPLY), NOW + 10**6) is looks
    assert looks[0].seen == NOW


def test_another_look_is_learnt_once_an_hour() -> None:
    looks = with_look((), look_of(b"mx", REPLY), NOW)
    other = look_of(b"mx2", REPLY)
    assert with_look(looks, other, NOW + limits.LOOK_AGAIN_SECONDS - 1) is looks
    assert with_look(looks, other, NOW + limits.LOOK_AGAIN_SECONDS)[0] == other
    # A clock that was set back does not keep it from learning.
    assert with_look(looks, other, NOW - 1)[0] == other


@given(st.lists(st.integers(0, 9), max_size=40))
def test_never_more_than_the_bound_and_the_newest_are_kept(faces: list[int]) -> None:
    looks: tuple[Look, ...] = ()
    learnt: list[Look] = []
    for step, face in enumerate(faces):
        look = look_of(b"mx%d" % face, REPLY)
        before, looks = looks, with_look(looks, look, NOW + step * limits.LOOK_AGAIN_SECONDS)
        if looks is not before:
            learnt.insert(0, look)
        assert look in looks
        assert len(looks) == len(set(looks)) <= limits.LOOKS_PER_PIN
    assert list(looks) == learnt[: limits.LOOKS_PER_PIN]


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_whatever_a_server_says_is_a_bounded_look(host: bytes, reply: bytes) -> None:
    look = look_of(host, reply)
    assert len(look.host) <= limits.NAME_OCTETS
    assert sum(map(len, look.keywords)) <= len(reply)
    assert not any(set(b" \t\r\n") & set(keyword) for keyword in look.keywords)
