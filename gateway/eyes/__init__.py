"""What a listener on the wire sees: nothing here knows a key, and nothing here changes a packet.

capture      the ear: mail packets into a capture file
wire         a capture file -> TCP sessions, their octets in order
reading      one session's octets -> what of them can be read, and what is sealed
transcript   the same as lines for a reader
learnt       what a listener has learnt of sessions and of pairs of servers
"""
