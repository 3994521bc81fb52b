"""What happened, for those who look: lines, counters, alarms.

log         one line per fact; `sinks` takes lines to journald or syslog
counters    what was counted, over all processes, and the bell of alarms
protection  pure: whether mail is protected now, in one answer for everybody
exposition  pure: all of it in Prometheus' text format
"""
