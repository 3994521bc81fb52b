"""What the two mail servers say to each other, up to the decision. Pure: octets in, observations out.

grammar      the productions of RFC 5321 that matter here, and how strictly we read them
buffer       finds CRLF lines in a bounded stream, in linear time
events       Role, and what an observer has to say
dialogue     the stages up to the decision, as a table
observer     two streams in -> observations: what passes now, what is held, whether it is safe to switch
capability   the offer lines in an EHLO reply: make, recognise, strip; and the verb
firstflight  where content of a mail could begin in what the sender says after it
"""
