"""Nightmail beside what a site would pick instead: one run, the same namespaces, the same mail.

    variants      the table: what stands on the two gateways of each plane
    places        one gateway's namespace: a rival's daemon there, and the rules that bring mail to it
    haproxy       HAProxy as a transparent proxy, in clear
    stunnel       a pair of stunnels, STARTTLS between them
    postfix       a pair of Postfix relays, opportunistic TLS between them
    driver        sessions at a fixed rate, or held open: a process of its own in the sender's namespace
    holding       the driver's held sessions, and what their memory is
    run           a whole run: the race, the growth, what is kept of it
    measures      the measurements, interleaved
    growth        how cost grows with sessions, workers and remembered peers
    comparison    rounds -> figures and ratios (pure)
    plots         figures -> SVG
    report        figures -> a page
    __main__      `scripts/bench rivals`, `scripts/bench growth`

It runs nothing outside its own namespaces: the rivals' services on this machine are neither started nor read.
Counterparts: `bench.planes` builds and takes down, `bench.load` and `bench.delivery` drive.
"""
