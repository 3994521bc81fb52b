from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bench.rivals import comparison, driver, haproxy, places, postfix, stunnel
from bench.rivals.variants import VARIANTS, Rival, replaced
from gateway.lab import gateways

RULES = {
    "tproxy": places.tproxy_rules("inside", "outside"),
    "redirect": places.redirect_rules("outside", "inside"),
    "relay": places.relay_rules("inside"),
}


# --- The rivals' configurations --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_rules_are_whole_tables_about_mail_alone(name: str) -> None:
    lines = RULES[name].splitlines()
    assert sum(line.startswith("*") for line in lines) == lines.count("COMMIT")
    for line in lines:
        if line.startswith("-A"):
            assert re.search(r"--[sd]port 25\b", line), line


def test_mail_comes_from_the_clients_and_what_returns_from_the_servers() -> None:
    assert "-i inside -p tcp --dport 25 -j TPROXY" in RULES["tproxy"]
    assert "-i outside -p tcp --sport 25 -m socket --transparent" in RULES["tproxy"]
    assert "-i outside -p tcp --dport 25 -j REDIRECT" in RULES["redirect"]
    assert "-i inside -p tcp --sport 25 -m socket --transparent" in RULES["redirect"]


def test_a_proxy_that_keeps_the_port_has_its_far_side_in_a_zone_of_its_own() -> None:
    zones = [line for line in RULES["redirect"].splitlines() if "CT --zone" in line]
    assert len(zones) == 2
    assert "zone" not in RULES["tproxy"]  # another port: nothing to keep apart


def test_haproxy_is_transparent_and_keeps_the_clients_address() -> None:
    text = haproxy.configuration()
    assert "mode tcp" in text
    assert "source 0.0.0.0 usesrc clientip" in text
    assert f"bind :{places.PROXY_PORT} transparent" in text


def test_stunnel_speaks_starttls_and_nothing_older_than_tls_1_3() -> None:
    sending = stunnel.sending_configuration(Path("/f/log"))
    receiving = stunnel.receiving_configuration(Path("/f/log"), Path("/f/c.pem"), Path("/f/k.pem"))
    for text in (sending, receiving):
        service = text.partition("[smtp]")[2].splitlines()
        assert {"protocol = smtp", "transparent = both", "sslVersionMin = TLSv1.3"} <= set(service)
    assert "client = yes" in sending
    assert "client = yes" not in receiving
    assert "cert = /f/c.pem" in receiving


def test_postfix_relays_by_tls_where_it_is_offered() -> None:
    sending = postfix.main_cf(
        Path("/f"), name="a", trusted="10.0.0.0/8", next_hop="192.0.2.1", receiving=False
    )
    receiving = postfix.main_cf(
        Path("/f"), name="b", trusted="127.0.0.0/8", next_hop="192.0.2.2", receiving=True
    )
    assert "relayhost = [192.0.2.1]" in sending
    assert "\nsmtp_tls_security_level = may\n" in sending
    assert "smtpd_tls_security_level" not in sending
    assert "\nsmtpd_tls_security_level = may\n" in receiving


def test_postfix_has_these_settings(tmp_path: Path) -> None:
    text = postfix.main_cf(tmp_path, name="b", trusted="127.0.0.0/8", next_hop="192.0.2.2", receiving=True)
    (tmp_path / "main.cf").write_text(text)
    (tmp_path / "master.cf").write_text("")
    done = subprocess.run(
        ["postconf", "-c", str(tmp_path), "-n"], capture_output=True, text=True, check=True, timeout=30
    )
    assert "unused parameter" not in done.stderr
    assert f"queue_directory = {tmp_path}/queue" in done.stdout


def test_a_mail_has_arrived_when_the_receiver_has_it_and_not_before() -> None:
    sent = (
        "Nov 26 22:39:14 gw-b postfix/smtp[1]: 31A3: to=<b17@b.test>, relay=10.12.0.101[10.12.0.101]:25,"
        " delay=0.5, delays=0.1/0/0/0.3, dsn=2.0.0, status=sent (250 2.0.0 Ok)"
    )
    assert postfix.sent_to(sent) == "b17@b.test"
    assert postfix.sent_to(sent.replace("status=sent", "status=deferred")) is None
    assert postfix.sent_to("Nov 26 gw-b postfix/qmgr[1]: 31A3: removed") is None


def test_every_variant_is_in_the_table_and_has_what_stands_on_its_nodes() -> None:
    assert set(VARIANTS) == set(Rival)
    for variant in Rival:
        made = variant.made
        assert bool(made.stand) == (bool(made.nodes) and not made.gateways)
        if made.nodes and made.gateways:
            assert made.nodes == made.gateways


def test_a_gateways_setting_is_changed_or_the_bench_stops() -> None:
    assert replaced(gateways.CONFIGURATION, "minutes = 0", "minutes = 30").count("minutes = 30") == 1
    assert replaced(gateways.CONFIGURATION, "[daemon]", "[daemon]\nworkers = 4").count("workers = 4") == 1
    with pytest.raises(ValueError, match="does not hold"):
        replaced("", "minutes = 0", "minutes = 30")


# --- The driver ------------------------------------------------------------------------------------------


def test_sessions_are_due_at_the_rate_asked_for_and_at_the_same_moments_for_everybody() -> None:
    moments = driver.due(100.0, 50.0, 1)
    assert moments == driver.due(100.0, 50.0, 1) == sorted(moments)
    assert moments != driver.due(100.0, 50.0, 2)
    assert len(moments) == pytest.approx(5000, rel=0.05)
    assert moments[0] >= 0 and moments[-1] < 50


# --- Figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([1.0], 0.99, 1.0),
        # A session that failed took longer than all others.
        ([None, 1.0], 0.5, 1.0),
        ([None, 1.0], 0.99, None),
    ],
)
def test_percentiles(values: list[float | None], share: float, found: float | None) -> None:
    assert comparison.percentile(values, share) == found


def test_no_sessions_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no sessions"):
        comparison.percentile([], 0.5)


def test_exponents() -> None:
    assert comparison.exponent([10, 1000], [5.0, 5.0]) == 0
    assert comparison.exponent([10, 1000], [1.0, 100.0]) == pytest.approx(1)
    assert comparison.exponent([10, 1000], [1.0, 10_000.0]) == pytest.approx(2)
