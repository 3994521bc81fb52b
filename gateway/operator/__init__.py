"""What people ask of a gateway, a file for each question; `cli` parses it and prints the answer.

check, needs           can this machine do it?
lifecycle, planning    `up` and `down`, and what `up` would change; `service` is systemd's side of it,
                       `turn` keeps two of them apart
reloading              a new configuration or version
doctor                 what is wrong here, and what mends it
status, watching       is mail protected now?
explain                what would become of a connection, and why
audit                  what a listener learnt
ping, ping_told        has that mail server a gateway?
peers, sources         whom we remember
identity               the site's own
"""
