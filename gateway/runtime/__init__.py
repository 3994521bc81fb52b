"""The only room with an event loop: sockets, timers, processes.

`endpoint` is one socket, `connection` one session (two endpoints and a machine), `worker` one process on
the data path, `supervisor` the process beside it that keeps rules and workers; `link` is how the two talk,
`said` what may be said, `hearing` what the supervisor makes of it.
"""
