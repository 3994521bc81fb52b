"""How packets reach us: Linux, privileged, and without any knowledge of the protocol.

marks      pure: the eight bits of the packet mark that are ours, and what each says
syn        pure: one IPv4 or IPv6 packet -> whose connection to where
roles      pure: who sends, who receives: which role we have for a SYN
gate       pure: held SYNs, dials and their outcomes -> verdicts
held       pure: the gate's book of SYNs that wait; admission: whether there is room for one more session
outcomes   pure: how a dial can end, and the verdict of it
placements pure: where the gateway stands, one file each: what differs between router, host and bridge
objects    pure: the kinds of thing that we put into the kernel, as data
ruleset    pure: Config -> a list of those, with the texts for iptables-restore and nft
dump       pure: what iptables-save prints -> what of it is ours, and its exact inverse
kernel     applies, verifies and removes a rule set; the only user of pyroute2 and subprocess here
statements pure: the text of a table of nft -> what it puts in, line by line, for people who read a plan
wanted     what the operator wants, up or down, in a file
pulse      a worker's proofs of life to the kernel
nfqueue    one netfilter queue; the only user of netfilterqueue
tproxy     transparent sockets: the listener, and the dialled one bound to the client's own address
"""
