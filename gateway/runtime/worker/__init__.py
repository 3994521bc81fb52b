"""The process on the data path, confined and not trusted: nothing here is run by the supervisor, or runs it.

worker       the process itself: told its order, heard of by its link, drained
intake       the queue, `listeners` and `dials`: how connections come
sessions     all sessions of one worker: their machines, their lines in the log, their facts
connection   one session: two `endpoint`s and a machine
endpoint     one socket; `pressure` is what may wait in all of them, `reserve` the last descriptors
learning     what sessions teach it; what is news of that goes to the supervisor
surroundings what a new session is told; `memory` where it is looked up, `ahead` keys drawn beforehand
signing      the way to the signer
turns        the event loop, and `poller` its epoll
"""
