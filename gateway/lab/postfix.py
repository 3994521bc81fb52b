"""Three real Postfix instances, one for each mail namespace, each wholly below the lab's folder.

They are as Postfix comes, but for what keeps them inside the lab: no DNS, transports by literal address,
mailboxes by virtual(8). The machine's own Postfix must never be read, started or changed: nothing here
names its configuration folder. Counterpart: `mail`, which gives them mail and looks into the mailboxes.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.lab.inotify import MODIFIED, Inotify
from gateway.lab.processes import run_in
from gateway.lab.topology import Node, Topology

MAILBOX_OWNER: Final = "nobody"
"""virtual(8) delivers as somebody without rights; every mailbox of the lab is this one's."""
LARGEST_MAIL_OCTETS: Final = 256 * 1024 * 1024
"""Postfix's own limit of 10 MB would refuse a benchmark's large mail."""
COMMON_USERS: Final = ("postmaster", "user")

MAIN_CF: Final = """\
# Written by the lab; gone with it.
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
maillog_file = {log}
maillog_file_prefixes = {folder}
multi_instance_enable = no

myhostname = {name}.{domain}
mydomain = {domain}
myorigin = {domain}
mydestination =
inet_interfaces = all
inet_protocols = ipv4, ipv6
mynetworks = 127.0.0.0/8 [::1]/128
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
biff = no
alias_maps =
alias_database =
local_recipient_maps =

# Nothing outside is asked: no resolver, no reverse look-up, transports by literal address.
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
transport_maps = texthash:{config}/transport

virtual_mailbox_domains = {domain}, {six_domain}
virtual_mailbox_base = {mail}
virtual_mailbox_maps = texthash:{config}/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
message_size_limit = {largest}

# What Debian's Postfix does as a client: STARTTLS where it is offered.
smtp_tls_security_level = may
"""

SERVER_TLS: Final = """
smtpd_tls_security_level = may
smtpd_tls_cert_file = {config}/certificate.pem
smtpd_tls_key_file = {config}/key.pem
"""

MASTER_CF: Final = """\
smtp       inet  n  -  n  -     -  smtpd
pickup     unix  n  -  n  60    1  pickup
cleanup    unix  n  -  n  -     0  cleanup
qmgr       unix  n  -  n  300   1  qmgr
tlsmgr     unix  -  -  n  1000? 1  tlsmgr
rewrite    unix  -  -  n  -     -  trivial-rewrite
bounce     unix  -  -  n  -     0  bounce
defer      unix  -  -  n  -     0  bounce
trace      unix  -  -  n  -     0  bounce
verify     unix  -  -  n  -     1  verify
flush      unix  n  -  n  1000? 0  flush
proxymap   unix  -  -  n  -     -  proxymap
proxywrite unix  -  -  n  -     1  proxymap
smtp       unix  -  -  n  -     -  smtp
relay      unix  -  -  n  -     -  smtp
showq      unix  n  -  n  -     -  showq
error      unix  -  -  n  -     -  error
retry      unix  -  -  n  -     -  error
discard    unix  -  -  n  -     -  discard
local      unix  -  n  n  -     -  local
virtual    unix  -  n  n  -     -  virtual
lmtp       unix  -  -  n  -     -  lmtp
anvil      unix  -  -  n  -     1  anvil
scache     unix  -  -  n  -     1  scache
postlog    unix-dgram n - n -   1  postlogd
"""


@dataclass(frozen=True, slots=True)
class Instance:
    """One mail server of the lab, and where its things are."""

    node: Node
    namespace: str
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "etc"

    @property
    def queue(self) -> Path:
        return self.folder / "queue"

    @property
    def log(self) -> Path:
        return self.folder / "mail.log"

    @property
    def users(self) -> tuple[str, ...]:
        return (self.node.user, *COMMON_USERS)

    def mailbox(self, user: str) -> Path:
        """The Maildir of one of this server's users."""
        return self.folder / "mail" / user


def transport_table(instance: Instance, topology: Topology) -> str:
    """Every other domain at its server's literal IPv4 address, and its `six.` twin at the IPv6 one."""
    lines = []
    for node in topology.nodes.values():
        if node.domain and node != instance.node:
            lines.append(f"{node.domain} smtp:[{node.home.v4}]:25")
            lines.append(f"{node.six_domain} smtp:[{node.home.v6}]:25")
    return "\n".join(lines) + "\n"


def mailbox_table(instance: Instance) -> str:
    """Both domains' users, each with a Maildir (hence the slash) of its own."""
    domains = (instance.node.domain, instance.node.six_domain)
    return "".join(f"{user}@{domain} {user}/\n" for domain in domains for user in instance.users)


def main_cf(instance: Instance, *, offer_starttls: bool) -> str:
    """The whole main.cf of one instance."""
    owner = pwd.getpwnam(MAILBOX_OWNER)
    text = MAIN_CF + (SERVER_TLS if offer_starttls else "")
    return text.format(
        folder=instance.folder,
        config=instance.config,
        queue=instance.queue,
        data=instance.folder / "data",
        mail=instance.folder / "mail",
        log=instance.log,
        name=instance.node.name,
        domain=instance.node.domain,
        six_domain=instance.node.six_domain,
        uid=owner.pw_uid,
        gid=owner.pw_gid,
        largest=LARGEST_MAIL_OCTETS,
    )


def require_postfix() -> None:
    """Raise EnvironmentFailureError where Postfix, its user or its group is missing."""
    if shutil.which("postfix") is None:
        raise EnvironmentFailureError("Postfix is not installed: apt-get install postfix")
    try:
        pwd.getpwnam("postfix")
        grp.getgrnam("postdrop")
    except KeyError:
        raise EnvironmentFailureError("Postfix's user or group is missing: reinstall postfix") from None


def prepare(instance: Instance, topology: Topology, *, offer_starttls: bool = False) -> None:
    """Write the instance's configuration and make its folders; nothing runs yet."""
    instance.config.mkdir(parents=True)
    instance.queue.mkdir()
    data = instance.folder / "data"
    data.mkdir(mode=0o700)
    os.chown(data, pwd.getpwnam("postfix").pw_uid, -1)
    (instance.config / "main.cf").write_text(main_cf(instance, offer_starttls=offer_starttls))
    (instance.config / "master.cf").write_text(MASTER_CF)
    (instance.config / "transport").write_text(transport_table(instance, topology))
    (instance.config / "mailboxes").write_text(mailbox_table(instance))
    for user in instance.users:
        _make_maildir(instance.mailbox(user))
    if offer_starttls:
        _make_certificate(instance)


def start(instance: Instance) -> None:
    """Returns when the master has its ports: `postfix start` waits for that itself."""
    run_in(instance.namespace, ["postfix", "-c", str(instance.config), "start"])


def flush(instance: Instance) -> None:
    """Try all deferred mail now."""
    run_in(instance.namespace, ["postqueue", "-c", str(instance.config), "-f"])


def queued(instance: Instance) -> list[str]:
    """The queue that each waiting message is in ("active", "deferred", ...)."""
    said = run_in(instance.namespace, ["postqueue", "-c", str(instance.config), "-j"]).stdout
    return [str(json.loads(line)["queue_name"]) for line in said.splitlines()]


def wait_deferred(instance: Instance, seconds: float) -> None:
    """Wait until all that is in the queue has been tried and put aside. Raises EnvironmentFailureError."""
    deadline = time.monotonic() + seconds
    watch = Inotify(instance.log, MODIFIED)
    try:
        # Each attempt ends with a line in the log, so there is nothing to see between two of them.
        while set(queued(instance)) - {"deferred"}:
            if not watch.wait(deadline - time.monotonic()):
                raise EnvironmentFailureError(
                    f"{instance.node.name} is still at work on a mail after {seconds:.0f} s"
                )
    finally:
        watch.close()


def _make_maildir(folder: Path) -> None:
    # Made beforehand, so that somebody can watch it before the first mail comes.
    owner = pwd.getpwnam(MAILBOX_OWNER)
    for path in (folder.parent, folder, folder / "new", folder / "cur", folder / "tmp"):
        path.mkdir(exist_ok=True)
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _make_certificate(instance: Instance) -> None:
    name = f"{instance.node.name}.{instance.node.domain}"
    kind = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    files = ["-keyout", str(instance.config / "key.pem"), "-out", str(instance.config / "certificate.pem")]
    run_in(instance.namespace, ["openssl", *kind, "-subj", f"/CN={name}", *files])
