"""The first process, root, never on the data path: it keeps the others and all that outlives them.

supervisor   the process itself, and `lasting` what goes on as long as it does; `heap` keeps it from growing
pool         the workers; `worker_process` is one of them, `child` its pid, `environment` its variables,
             `watchdog` sees who hangs, `inquiry` is a question to all of them
signer_process  the signer
sole         that there is one daemon to a network namespace
handover     what goes over to the next supervisor at a reload, and `preflight` whether there should be one
rulekeeper   our rules in the kernel, and `inside`, `dead_ends` what in them comes and goes
site         the identity, read and switched when due
hearing      what workers say, and what follows; `causes` names what was behind it
peer_memory  the memory of peers, and `sources` that of clients: the one writer
control      questions of the commands; `seeing`, `days`, `metrics` what is shown
alarms_out   alarms to people: `alarm_text` is what they say, `alarm_mail` takes one to a mail server
"""
