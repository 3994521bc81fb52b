"""SYNs that are sent again: of a connection that is taken, or dialled for, while a set would let them by.

One half of it must not be between client and server, and the other one at the gateway.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator

from tests.lab.probes import PATIENCE, Dialogue, MailServer, eventually, sent_again
from tests.lab.two_sites import TOOLS, Sites


@contextlib.contextmanager
def deaf(sites: Sites, node: str, v6: bool, match: str) -> Iterator[Callable[[], None]]:
    """What matches does not come in there, until it is called."""
    tool = TOOLS[v6]
    with contextlib.ExitStack() as until_then:
        sites.sh(node, f"{tool} -I INPUT -p tcp {match} -j DROP")
        until_then.callback(sites.sh, node, f"{tool} -D INPUT -p tcp {match} -j DROP")
        yield until_then.close


def comes_again(
    sites: Sites,
    ends: tuple[str, str, int],
    kind: str,
    deafness: contextlib.AbstractContextManager[Callable[[], None]],
    let_by: contextlib.AbstractContextManager[None],
    at: str = "a",
) -> None:
    """A SYN from one node to another, by this port (0: any), while somebody is deaf and the kernel of gateway
    `at` has it in this set. The gateway has the whole session."""
    client, target, port = ends
    v6 = ":" in target
    with (
        MailServer(sites, "mta-b", v6) as server,
        deafness as hear,
        _begun_connection(sites, client, target, port) as made,
    ):
        port = made.getsockname()[1]
        source = made.getsockname()[0]
        listed = f"nft list set inet nightmail {kind}{6 if v6 else 4}"
        element = f"{source} . {port} . {target} . 25"
        eventually(lambda: element in sites.sh(sites.home(at), listed), what=f"a SYN that is {kind}")
        seen = sites.log(at).count(" session begun ")
        with let_by:
            eventually(lambda: sent_again(made), what="a second SYN")
            hear()
            made.settimeout(PATIENCE)
            with Dialogue(made) as dialogue:
                dialogue.begin()
                dialogue.send_mail(b"in one piece")
                dialogue.say(b"QUIT")
        assert server.mails == [b"in one piece\r\n"]
        assert len(server.peers) == 1
    eventually(lambda: sites.log(at).count(" session begun ") == seen + 1, what="a session of the gateway's")


@contextlib.contextmanager
def _begun_connection(sites: Sites, client: str, target: str, port: int) -> Iterator[socket.socket]:
    """Its SYN is under way."""
    with sites.socket(client, ":" in target) as made:
        made.setblocking(False)
        if port:
            made.bind((sites.address(client, ":" in target), port))
        assert made.connect_ex((target, 25)) == errno.EINPROGRESS
        yield made
