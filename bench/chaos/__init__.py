"""Breaks things on purpose while mail flows, and says what the mail noticed: `scripts/chaos`.

    faults    a folder, and the table: what each one does, how it is undone, and whether it itself breaks TCP
    ground    two labs, one with gateways and one without; both get each fault at the same moment
    service   what systemd does for the daemon: starts it, and starts it again when it has ended
    pins      what others do to its memory of peers
    clients   the load: a new connection every 20 ms, and sessions that last and send mail
    server    who takes that mail, and writes down what came
    ear       who listens on the wire, and writes down what went in clear
    facts     the lines that these three write, and how they are followed
    judge     pure: facts of one fault, with and without gateways -> its figures
    injected  what a gateway's Python is made to do: a clock that jumps, a loop that stands still
    __main__  the command: which faults, in which order, and what is printed

It must never touch the machine's own network namespace; its labs and all processes in them are gone at the
end.
"""
