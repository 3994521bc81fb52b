"""The only room with an event loop: sockets, timers, processes; by process, where one has many files.

worker       the processes on the data path; each as confined as a process can be
supervisor   the process beside them, root: rules, memory, workers
signer       the process that holds the identity
link, loop   how they talk; `order` is what a worker is told, `said` what it may say, `bug` what none foresaw
confinements what each process is left with, and `hardening`, `landlock`, `system_calls` how
identity_file, machine   the identity on the disk, and the machine that it belongs to
"""
