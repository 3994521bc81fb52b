"""What we do about what is seen. Pure: no input or output, `now` comes in.

decision        upgrade or pass, ring or not, remember or not: the only decider
cause           what a lost offer likely was; `own_path` whether many at once are our own path
broken          channels that break off, one after the other: when that rings
dead_end        destinations that offer nothing, and get fewer looks
ignored_offers  sources that take no offer, and get fewer of them
budget          handshakes a second, in all and by source
newcomers       clients that are learnt of in a day, by network
limits          every size, count, rate and timeout
"""
