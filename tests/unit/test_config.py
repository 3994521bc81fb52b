"""Every key: what it may be, and refused when it is not, with file, line, key and what is allowed."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.addresses import Ipset
from gateway.config import (
    KEYS,
    Config,
    Marks,
    Placement,
)
from tests.unit.configured import complaint, loaded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nightmail.toml"


def test_empty_file_is_all_defaults(path: Path) -> None:
    assert loaded(path, "") == Config()


def test_every_key(path: Path) -> None:
    text = """
version = 1
placement = "bridge"
[interfaces]
inside = ["eth1", "eth1", "vlan.5"]
outside = ["eth0"]
inside_networks = ["192.0.2.0/24", "2001:db8:5::/48"]
[mail]
ports = [25, 2525]
[exceptions]
always = ["192.0.2.8", "partners"]
never = ["198.51.100.7", "ipset:spam-traps", "partners", "ipset6:spam-traps"]
never_offer = ["2001:db8::1", "own-lab"]
[sets]
partners = ["192.0.2.8", "203.0.113.0/24"]
own-lab = []
[nat]
addresses = ["203.0.113.9"]
[marks]
mask = 0x00ff0000
[kernel]
table = 100
zone = 7
first_queue = 0
first_listen_port = 20000
[bridge]
name = "br-mail"
port = "out"
interface = "lift"
table = 101
[daemon]
workers = 4
state_dir = "/srv/nm"
run_dir = "/run/nm"
user = "nm"
[log]
level = "debug"
file = ""
to = "journal"
[dead_ends]
minutes = 5
[offers]
rest = false
[channel]
tickets = false
[limits]
sessions = 100
sessions_per_source = 10
handshakes_per_second = 50
handshakes_per_source = 5
held_megabytes = 8
[alarms]
again_after_hours = 1
command = ["/usr/local/bin/tell", "--all", "two words"]
mail_to = "postmaster@a.example"
sendmail = "/usr/lib/sendmail"
server = "[2001:db8::25]:2525"
[metrics]
listen = "unix:/run/nm/metrics.sock"
"""
    expected = Config(
        placement=Placement.BRIDGE,
        inside=("eth1", "vlan.5"),
        outside=("eth0",),
        inside_networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/48")),
        always=(ip_network("192.0.2.8/32"), ip_network("203.0.113.0/24")),
        never=(ip_network("198.51.100.7/32"), ip_network("192.0.2.8/32"), ip_network("203.0.113.0/24")),
        never_ipsets=(Ipset("spam-traps", 4), Ipset("spam-traps", 6)),
        never_offer=(ip_network("2001:db8::1/128"),),
        nat_addresses=(ip_network("203.0.113.9/32"),),
        ports=(25, 2525),
        marks=Marks(0x00FF0000),
        table=100,
        zone=7,
        first_queue=0,
        first_listen_port=20000,
        bridge="br-mail",
        bridge_port="out",
        bridge_interface="lift",
        bridge_table=101,
        workers=4,
        state_dir=Path("/srv/nm"),
        run_dir=Path("/run/nm"),
        user="nm",
        log_level="debug",
        log_to="journal",
        dead_end_minutes=5,
        offers_rest=False,
        tickets=False,
        alarm_again_hours=1,
        alarm_command=("/usr/local/bin/tell", "--all", "two words"),
        alarm_mail_to="postmaster@a.example",
        alarm_sendmail=Path("/usr/lib/sendmail"),
        alarm_server=("2001:db8::25", 2525),
        metrics_listen=Path("/run/nm/metrics.sock"),
        sessions=100,
        sessions_per_source=10,
        handshakes_per_second=50,
        handshakes_per_source=5,
        held_megabytes=8,
    )
    assert loaded(path, text) == expected
    # Not with `log.to`: one of the two.
    expected = replace(expected, log_file=Path("/var/log/nightmail"))
    assert loaded(path, '[log]\nfile = "/var/log/nightmail"\n').log_file == expected.log_file
    facts_of_the_machine = {"unfiltered", "untagged_vlan", "vlan_asked", "written"}
    for field in fields(Config):
        if field.name in facts_of_the_machine:
            continue
        assert getattr(expected, field.name) != getattr(Config(), field.name), "a field that no key sets"
    for key in KEYS:
        assert re.search(rf"^{key.rpartition('.')[2]} = ", text, re.MULTILINE), f"{key} is not in this test"


BAD = [
    ("version", "2", "1; a later version"),
    ("version", "0", "allowed: 1"),
    ("version", "true", "true is not allowed; allowed: 1"),
    ("version", "1.0", "1.0 is not allowed; allowed: 1"),
    ("placement", '"wall"', "router, host, bridge"),
    ("placement", '["host"]', "router, host, bridge"),
    ("interfaces.inside", '"eth0"', "a list of interface names"),
    ("interfaces.inside", "[]", "a list of interface names"),
    ("interfaces.inside", '["eth+"]', "a list of interface names"),
    ("interfaces.inside", '["a b"]', "a list of interface names"),
    ("interfaces.inside", '["-j"]', "a list of interface names"),
    ("interfaces.outside", '["abcdefghijklmnop"]', "a list of interface names"),
    (
        "interfaces.inside_networks",
        '["192.0.2.1/24"]',
        "bits are set behind the prefix; the network is 192.0.2.0/24",
    ),
    ("bridge.name", "0", "the name of an interface"),
    ("bridge.port", '["nm0"]', "the name of an interface"),
    ("bridge.interface", '"nm+"', "the name of an interface"),
    ("bridge.table", "254", "not 253, 254, 255"),
    ("mail.ports", "[]", "1 to 15 ports"),
    ("mail.ports", "[0]", "1 to 15 ports"),
    ("mail.ports", "25", "1 to 15 ports"),
    ("mail.ports", str(list(range(1, 17))), "1 to 15 ports"),
    ("exceptions.always", '["ipset:traps"]', "names of lists"),
    ("exceptions.always", '["partners"]', "partners is no address, and no list in [sets]; there: none"),
    ("exceptions.never", '["mail.example.org"]', "addresses and networks"),
    ("exceptions.never", '["192.0.2.1/24"]', "bits are set behind the prefix; the network is 192.0.2.0/24"),
    ("exceptions.never", '["fe80::1%eth0"]', "rules know no zone of an address"),
    ("exceptions.never", '["ipset:"]', '"ipset:NAME"'),
    ("exceptions.never", '["ipset4:traps"]', '"ipset:NAME"'),
    ("exceptions.never", '["ipset:-j"]', '"ipset:NAME"'),
    ("exceptions.never", '["ipset:two words"]', '"ipset:NAME"'),
    ("exceptions.never", '["ipset:abcdefghijklmnopqrstuvwxyz012345"]', '"ipset:NAME"'),
    ("exceptions.never_offer", "[25]", "addresses and networks"),
    ("exceptions.never_offer", '["ipset:traps"]', "names of lists"),
    ("sets.name", '"192.0.2.1"', "addresses and networks"),
    ("sets.name", '["others"]', "addresses and networks"),
    ("nat.addresses", '"192.0.2.1"', "addresses and networks"),
    ("marks.mask", "0xff", None),
    ("marks.mask", "0xfe000000", "eight neighbouring bits"),
    ("marks.mask", "0x1fe", None),
    ("marks.mask", "0xff00000000", "eight neighbouring bits"),
    ("marks.mask", "0", "eight neighbouring bits"),
    ("marks.mask", "true", "eight neighbouring bits"),
    ("kernel.table", "254", "not 253, 254, 255"),
    ("kernel.table", "0", "from 1"),
    ("kernel.zone", "65536", "to 65535"),
    ("kernel.first_queue", "-1", "from 0"),
    ("kernel.first_queue", "65505", "to 65504"),
    ("kernel.first_listen_port", "25", "from 1024"),
    ("daemon.workers", "0", "from 1"),
    ("daemon.workers", "2.0", "whole number"),
    ("daemon.workers", '"2"', "whole number"),
    ("daemon.state_dir", '"var"', "absolute path"),
    ("daemon.state_dir", '"/var/../etc"', "absolute path"),
    ("daemon.state_dir", '"/"', "the gateway's alone"),
    ("daemon.state_dir", '"/var/lib/"', "the gateway's alone"),
    ("daemon.state_dir", '"//var"', "the gateway's alone"),
    ("daemon.run_dir", "7", "absolute path"),
    ("daemon.run_dir", f'"/{"r" * 94}"', "of at most 94 octets"),
    ("daemon.user", '"root"', "other than root"),
    ("daemon.user", '"no body"', "other than root"),
    ("daemon.user", "61000", "other than root"),
    ("log.level", '"loud"', "debug, info, notice, alarm, error"),
    ("log.file", '"log"', "absolute path"),
    ("log.to", '"syslogd"', "stderr, journal, syslog"),
    ("limits.sessions", "0", "a whole number from 1 to 1000000"),
    ("limits.sessions_per_source", "0", "a whole number from 1 to 1000000"),
    ("limits.handshakes_per_second", "0", "a whole number from 1 to 100000"),
    ("limits.handshakes_per_source", "0", "a whole number from 1 to 100000"),
    ("limits.held_megabytes", "0", "a whole number from 1 to 100000"),
    ("alarms.again_after_hours", "169", "from 1 to 168"),
    ("dead_ends.minutes", "-1", "from 0 to 1440"),
    ("offers.rest", "1", "true or false"),
    ("offers.rest", '"no"', "true or false"),
    ("channel.tickets", '"yes"', "true or false"),
    ("alarms.command", '"/bin/tell me"', "a list of words"),
    ("alarms.command", '["tell"]', "an absolute path"),
    ("alarms.command", '["/bin/../tell"]', "an absolute path"),
    ("alarms.command", '["/bin/tell", 1]', "a list of words"),
    ("alarms.command", '["/bin/tell", "a\\u0000b"]', "a list of words"),
    ("alarms.mail_to", '"postmaster"', "an address"),
    ("alarms.mail_to", '"-oQ/tmp@a.example"', "an address"),
    ("alarms.mail_to", '"a@b.example, c@d.example"', "an address"),
    ("alarms.mail_to", '"a@b.example\\nBcc: c@d.example"', "an address"),
    ("alarms.mail_to", f'"{"a" * 250}@b.example"', "an address"),
    ("alarms.sendmail", '"sendmail"', "an absolute path"),
    ("alarms.server", '"-oProxy"', "a mail server"),
    ("alarms.server", '"mail.a.example:65536"', "a mail server"),
    ("alarms.server", '"2001:db8::1"', "a mail server"),
    ("alarms.server", '"[1:2]"', "no IPv6 address"),
    ("metrics.listen", '"192.0.2.1:9425"', "the loopback alone"),
    ("metrics.listen", '"0.0.0.0:9425"', "the loopback alone"),
    ("metrics.listen", '"[::]:9425"', "the loopback alone"),
    ("metrics.listen", '"localhost:9425"', "the loopback alone"),
    ("metrics.listen", '"127.0.0.1"', "the loopback alone"),
    ("metrics.listen", '"127.0.0.1:0"', "the loopback alone"),
    ("metrics.listen", '"127.0.0.1:65536"', "the loopback alone"),
    ("metrics.listen", '"[::1:9425"', "the loopback alone"),
    ("metrics.listen", '"unix:metrics.sock"', "without .."),
    ("metrics.listen", f'"unix:/{"x" * 107}"', "at most 107 octets"),
    ("metrics.listen", "9425", "the loopback alone"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), BAD)
def test_bad_values_name_file_line_key_and_what_is_allowed(
    path: Path, key: str, value: str, allowed: str | None
) -> None:
    section, _, name = key.rpartition(".")
    text = (
        f"# a comment\n\n[{section}]\n{name} = {value}\n"
        if section
        else f"# a comment\n\n\n{name} = {value}\n"
    )
    if allowed is None:
        assert loaded(path, text).marks.mask == int(value, 0)
        return
    message = complaint(path, text)
    assert message.startswith(f"{path}:4: {key}: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:9425", ("127.0.0.1", 9425)),
        ("127.0.0.53:1", ("127.0.0.53", 1)),
        ("[::1]:9425", ("::1", 9425)),
        ("unix:/x", Path("/x")),
        ("", None),
    ],
)
def test_where_metrics_may_be_served(path: Path, listen: str, expected: object) -> None:
    assert loaded(path, f'[metrics]\nlisten = "{listen}"\n').metrics_listen == expected


def test_every_key_has_a_bad_value_above() -> None:
    assert {key for key, _, _ in BAD} == set(KEYS)


def test_one_interface_is_not_both_sides(path: Path) -> None:
    text = '[interfaces]\ninside = ["eth0"]\noutside = ["eth0"]\n'
    assert ":2: interfaces.inside: eth0 is outside as well" in complaint(path, text)
    assert loaded(path, text + 'inside_networks = ["192.0.2.0/24"]\n').inside == ("eth0",)


def test_a_log_goes_to_one_place(path: Path) -> None:
    text = '[log]\nfile = "/var/log/nightmail"\nto = "syslog"\n'
    assert ":3: log.to: log.file is set as well" in complaint(path, text)
    assert loaded(path, text.replace("syslog", "stderr")).log_to == "stderr"


def test_mail_port_among_ours(path: Path) -> None:
    text = "[kernel]\nfirst_listen_port = 12500\n[mail]\nports = [25, 12525]\n"
    message = complaint(path, text)
    assert message.startswith(f"{path}:2: kernel.first_listen_port: 12500 to 12531 are ours")


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("127.0.0.1:12530", "port 12530 is ours (12525 to 12556)"),
        ("unix:/run/nightmail/control.sock", "/run/nightmail/control.sock is the daemon's own"),
        ("unix:/run/nightmail/./rules.lock", "/run/nightmail/rules.lock is the daemon's own"),
    ],
)
def test_metrics_in_the_place_of_what_is_ours(path: Path, listen: str, why: str) -> None:
    """A worker of some reload would have that port; and who asked the socket would hear of HTTP."""
    message = complaint(path, f'[metrics]\nlisten = "{listen}"\n')
    assert message.startswith(f"{path}:2: metrics.listen: {why}; allowed: another")


@pytest.mark.parametrize("line", ['inside = ["eth0"]', 'inside_networks = ["192.0.2.0/24"]'])
def test_on_the_mail_server_itself_nothing_else_is_inside(path: Path, line: str) -> None:
    message = complaint(path, f'placement = "host"\n[interfaces]\n{line}\n')
    assert message.startswith(f"{path}:3: interfaces.{line.split()[0]}: not on the mail server itself")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "interfaces.inside: to be named where placement is bridge"),
        ('[interfaces]\ninside = ["eth1"]', "interfaces.outside: to be named where placement is bridge"),
        (
            '[interfaces]\ninside = ["eth1"]\noutside = ["eth1"]\ninside_networks = ["192.0.2.0/24"]',
            ":3: interfaces.inside: eth1 is outside as well; allowed: a port on one side of the bridge",
        ),
        (
            '[interfaces]\ninside = ["eth1"]\noutside = ["eth0"]\n[bridge]\nport = "eth0"',
            ":6: bridge.port: eth0 is named twice",
        ),
        (
            '[interfaces]\ninside = ["eth1"]\noutside = ["eth0"]\n[bridge]\nport = "nm1"',
            "bridge.interface: nm1 is named twice",
        ),
        (
            '[interfaces]\ninside = ["eth1"]\noutside = ["eth0"]\n[bridge]\ntable = 2525',
            ":6: bridge.table: 2525 is kernel.table",
        ),
    ],
)
def test_a_bridge_names_its_ports_and_each_name_once(path: Path, lines: str, message: str) -> None:
    assert message in complaint(path, f'placement = "bridge"\n{lines}\n')
