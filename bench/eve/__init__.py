"""What a listener can still guess of a mail from sizes, times and directions alone.

sessions    real mail servers and gateways in a lab, one mail a session, labelled
unpadded/   the same gateways without padding, for comparison
sight       a capture -> what the listener sees of each session, as numbers
guess       a classifier, cross-validated, against chance
"""
