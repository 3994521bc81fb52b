"""The lab: two sites with gateways and one without, in network namespaces, with real mail servers.

topology.json, topology   names, addresses, cables: the table that the Vagrant lab reads too
network, processes        namespaces and what lives in them
postfix, mail             the mail servers, what goes into and comes out of them, and when (inotify)
gateways                  the daemon, as an operator would start it
listener                  what crosses the wire, captured (`eyes` reads it)
delay_line, wan           a long and bad line
place                     where it is on a machine: folder, lock, state file
lab                       all of it, up and down
overview                  what there is of it
commands, demo            what people ask for; verdicts: what a demonstration has shown
"""
