"""Measures what Nightmail costs: sessions per second, CPU, throughput, delivery time, memory.

    planes    the same small world three times: no gateway, one gateway in clear, two gateways with a channel
    load      Postfix's own load generator and sink, and what a round of them took
    meter     CPU time of the whole machine, without that of strangers
    delivery  one mail at a time, with a clock
    idle      memory of open sessions that do nothing
    figures   medians, spreads and pairs
    __main__  `scripts/bench`: which rounds, in which order, and what is printed
    profile   where a gateway's time goes (a command of its own)

It must never touch the machine's own network namespace and always takes its own namespaces away. It
measures the product as it is and changes nothing in it.
"""
