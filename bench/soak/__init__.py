"""Hours of mixed mail with faults at random: `scripts/soak`.

    plan      pure: a seed -> which fault comes when
    field     the lab of `bench.chaos`, the side with gateways alone, under a load that can last
    load      the raw sessions of that load
    account   pure: mails sent, found in mailboxes and in doubt -> what was lost, doubled or altered
    measures  what is looked at every half minute: memory, descriptors, threads, tables of the kernel, files
    ending    pure: processes that were told to end, which are no part of what may grow, and have to end
    verdict   pure: the record of a run, finished or not -> slopes, verdicts and the whole result
    __main__  the command

The record is a file of JSON lines, written as the run goes: what was killed can still be judged.
"""
