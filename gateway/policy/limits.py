"""Every size, count, rate and timeout, with its unit in the name and its reason beside it.

No other file of the daemon's or its commands' holds a literal of this kind, except the widths of fields,
which stay beside their layout, the kernel's own numbers, and how much of a table is shown. The lab has
numbers of its own.
"""

from __future__ import annotations

from typing import Final

# --- Specification: docs/protocol.md names these; changing one changes the protocol. ------------------

OFFER_MUST_BEGIN_BEFORE_OCTETS: Final = 2000
"""The last offer line begins before this octet of the reply: Postfix stores 2,048 and warns beyond."""
OFFER_LINE_OCTETS: Final = 512
"""RFC 5321 4.5.3.1.5: a reply line, CRLF included. Some hosts log longer ones."""
EHLO_LINE_OCTETS: Final = 512
"""RFC 5321 4.5.3.1.4: a command line, CRLF included."""
FRAME_BODY_OCTETS: Final = 65535
"""Frame length is a u16."""
RECORD_INNER_OCTETS: Final = 65519
"""Frame body less the AEAD's 16-octet tag."""
RECORD_CONTENT_OCTETS: Final = 65516
"""Inner less type u8 and length u16."""
REKEY_AFTER_RECORDS: Final = 1 << 14
"""Noise REKEY after so many records of a direction (at most 1 GiB under one key)."""
ENDORSEMENT_DAYS: Final = 14
"""A static key's endorsement ends at most so many days after its epoch."""
FIRST_FLIGHT_OCTETS: Final = 64 * 1024
"""What S reads from the sender before R's first record has verified, and keeps for a redial."""
HANDSHAKE_SECONDS: Final = 10.0
"""S waits so long for R's first record, then the handshake has failed."""
VERB_HANDSHAKE_SECONDS: Final = 20.0
"""R waits so long for the whole of message 2 behind the verb: longer than S waits for R."""
FIRST_RECORD_SECONDS: Final = 0.05
"""R waits so long for the receiver's answer to the first flight, to send its own first record with it. Only a
sender that pipelines BDAT, which S holds back until then, may notice."""
DIALS_PER_SESSION: Final = 3
"""First dial, second with a fresh offer, third in clear."""
IDENTITIES_PER_PIN: Final = 4
"""A site with several gateways that do not share an identity; more is an attack or a mistake."""
ACCEPT_AFTER_DAYS: Final = 7
"""A changed identity is accepted without the operator after so many days with the old one never between,"""
ACCEPT_AFTER_DAYS_SEEN: Final = 3
"""if it was seen on so many of them: a reinstalled gateway, not an afternoon's attack."""
STATEMENT_SHOWN_DAYS: Final = 400
"""R shows the statement that leads to its identity so long: a peer that writes once a year learns it."""
STATEMENTS_SHOWN: Final = 2
"""One to the identity that is offered, one from it to the next."""
OLD_IDENTITY_DAYS: Final = 30
"""S forgets an identity so long after its successor's first channel: a stolen old key ends; until then the
gateways of a site may change over one after the other."""
FAILURES_IN_A_ROW: Final = 3
"""Failed handshakes towards a destination that never upgraded, after which it is left in peace a while."""
FAILURE_REST_SECONDS: Final = 3600
"""The first such while; each further failure doubles it."""
FAILURE_REST_MOST_SECONDS: Final = 24 * 3600
"""It doubles no further."""
SOURCE_DROPS_IN_A_ROW: Final = 2
"""Connections that a client dropped right behind our offer, after which it gets none for a while: once is
chance, and a mailer that cannot read us must get its mail through."""
SOURCE_REST_SECONDS: Final = 24 * 3600
"""That while."""
OFFERS_IGNORED_IN_A_ROW: Final = 32
"""Offers in a row that a source has ignored, after which it gets fewer: so many mails of a stranger show that
he has no gateway, and nobody's first sessions are without an offer;"""
OFFERS_REST_ONE_IN: Final = 4
"""of its further sessions one in so many has an offer, by their ports: where these follow each other, a
gateway that is installed there is found by its fourth session; where they are drawn at random, nine times of
ten before S takes R for a dead end (`DEAD_END_AFTER_SESSIONS`)."""
TICKET_SECONDS: Final = 600.0
"""A ticket serves so long: busy pairs use theirs within seconds, others gain nothing by them."""
TICKET_ROOT_SECONDS: Final = 3600.0
"""So long after a full handshake there is another one, however busy the pair: whoever was to learn a ticket
in one of two machines, and then stands in the middle, is shaken off."""
TICKET_GRACE_SECONDS: Final = 60.0
"""S keeps a ticket so much longer than R: what R has offered in its last second must not come too late."""
TICKETS_REST_SECONDS: Final = 600.0
"""So long a source gets no offer with a ticket, behind one that its client did not take: a gateway that was
started anew dials twice, and several behind one address (NAT), which get each other's, once in this time."""
TICKETS_FORGIVEN: Final = 6
"""So many offers of a session with a ticket that S does not have cost it a dial, and are no failures: behind
one address there may be several R, each with a ticket of an S that was started anew since."""
TICKETS_FORGIVEN_SECONDS: Final = 90.0
"""None is forgiven later than that after the sender's EHLO has gone out: with three more dials of 60 s each
the sender has its reply within the 5 minutes that it waits (RFC 5321 4.5.3.2)."""
PARAMS_VERSION_OCTETS: Final = 64
"""A software version in PARAMS; it ends up in one log line."""
FLIGHT_FLOOR_OCTETS: Final = 512
"""Smaller flights look this large: commands and replies are all alike."""
LARGE_FLIGHT_OCTETS: Final = 16 * 1024
"""From here on a flight's last octets wait a little for more: it does not fit TCP's first window (14,480
octets at the usual 1,448 a segment), so the line's own acknowledgements take longer than that."""
FLIGHT_SILENCE_SECONDS: Final = 0.005
"""So long they wait: writers of a large mail pause for less, people and lines do not notice it."""

# --- Implementation: ours to change, by what it bounds. -----------------------------------------------

# Dialogues, flights and records -----------------------------------------------------------------------

RECORD_SEND_OCTETS: Final = 16 * 1024
"""Content of a full record: a reader waits for at most so much before it can verify anything."""
FLIGHT_HELD_STEP_OCTETS: Final = 64 * 1024
"""Of a large flight the octets above its last step wait, but above this coarser grid never: a channel holds
80 KiB at most, and what leaves before a pause shows the size of a very large mail to this grid."""
FLIGHT_LOOK_SECONDS: Final = 0.001
"""The last part of that silence is waited for anew: a loop that was late has not read what has come."""
GREETING_OCTETS: Final = 16 * 1024
"""Greeting up to its last line; longer ones pass, and are never upgraded. 50-line banners exist (4 KB)."""
EHLO_REPLY_OCTETS: Final = 16 * 1024
"""Held for inspection; the longest seen in public is below 2 KB. Beyond: passes, never upgraded."""
IGNORABLE_BELOW: Final = 16
"""Of 256: so often a first flight carries a record of an ignorable type, so that ignoring stays tested."""
TICKETS_KEPT: Final = 4096
"""By one worker as R, and as many as S: under 2 MB each."""
TICKETS_OF_A_PAIR: Final = 64
"""As R, of one source at one destination: as many sessions as it begins at the same moment."""
EPHEMERALS_AHEAD: Final = 32
"""Key pairs drawn in idle time, so that an offer costs no key generation in the session."""
EPHEMERALS_AT_ONCE: Final = 8
"""Drawn where none is left: the first costs 0.2 ms with cold caches, each further one 0.08; a client
waits for all of them."""
VERIFIED_ENDORSEMENTS: Final = 1024
"""Endorsements known to have verified, kept by one worker: about 220 octets each."""
FINGERPRINTS_KEPT: Final = 1024
"""Fingerprints of identities as text, kept by one process: about 250 octets each. A log line of each session
has one."""
LOOKS_CACHED: Final = 512
"""Replies, and lines of clients, that were taken apart and are kept: up to 2 KB each."""
NAME_OCTETS: Final = 255
"""So much is kept of a name that a stranger gives himself: a domain's length (RFC 5321 4.5.3.1.2)."""

# Sockets of a session ---------------------------------------------------------------------------------

LINGER_SECONDS: Final = 600.0
"""A closed session may take so long to hand its last octets to a slow socket; then it is reset."""
STALLED_SECONDS: Final = 7200.0
"""A peer that takes none of the octets that wait for it is given up after so long, as if it had vanished: its
kernel may answer for ever, and the other side, which is not read meanwhile, has long gone. Twice as long as
the most patient mail servers wait for a block of a mail."""
STALL_LOOK_SECONDS: Final = 60.0
"""A worker looks so often for such peers, some microseconds a session."""
DRAIN_SECONDS: Final = 5.0
"""After our own FIN octets of the peer are read and dropped so long, so that no reset overtakes our words."""
REDIAL_SECONDS: Final = 60.0
"""Connect, greeting and EHLO reply of a redial; the sender waits 5 minutes for its reply."""
READ_OCTETS: Final = 64 * 1024
"""One read from a socket. 64 KiB is where throughput stops growing."""
WRITE_BUFFER_OCTETS: Final = 256 * 1024
"""Octets waiting for a slow socket beyond which the other side is no longer read."""
KEEPALIVE_IDLE_SECONDS: Final = 660
"""Silence after which the kernel asks whether a socket's peer still lives: longer than any mail server waits
(10 minutes, RFC 5321 4.5.3.2). Without it a session whose two peers vanished would stay for ever."""

# The gate: SYNs, dials, listeners ---------------------------------------------------------------------

ACCEPTS_PER_TURN: Final = 64
"""Connections taken from a listener per turn of the loop, so that sessions get their turns too."""
DIAL_SECONDS: Final = 130.0
"""A silent destination: Linux gives up a connect after about 127 s, clients mostly earlier."""
UNCLAIMED_SECONDS: Final = 60.0
"""A dialled connection whose client never came for it (it gave up, or its SYN was forged)."""
SERVER_ANSWERS_SECONDS: Final = 10.0
"""Inbound: a server that answered so recently is taken to answer: accept first, then dial."""
TELL_ANSWER_SECONDS: Final = 1.0
"""A worker tells the others so often that an inside server answers."""
HELD_SYNS: Final = 4096
"""Held SYNs of one worker beyond which the gate turns to accept-first."""
HELD_SYNS_PER_SOURCE: Final = 512
"""The same for one source."""
QUEUE_LENGTH: Final = 4096
"""Packets the kernel holds for one worker's queue before its fail-open flag lets them pass: what a worker
judges in half a second. Whoever comes behind a full queue waits as long."""
QUEUE_COPY_OCTETS: Final = 512
"""Of a SYN the kernel hands over so much: IP header, extension headers and ports are all we read."""
QUEUE_SOCKET_OCTETS: Final = 16 * 1024 * 1024
"""Receive buffer of the queue's socket: a full queue of SYNs, at some 1.3 KB of kernel memory each."""
PACKETS_PER_RUN: Final = 256
"""Packets taken from the queue in one turn of the event loop, so that a flood leaves time for relaying."""
PROBE_SECONDS: Final = 1.0
"""Inbound: a probing dial silent for so long gets a second one beside it (the first SYN retransmission)."""
FIRST_SPARE_PORT: Final = 1024
SPARE_PORTS: Final = 31_744
"""On the mail server itself, connections to it in a client's name bear one of these, 1024 to 32767: Linux,
BSD and Windows do not use them for outgoing connections, so hardly a client has the same."""
SPARE_PORT_TRIES: Final = 16
"""So many of them, if other sockets own them; then the kernel chooses."""
LISTEN_BACKLOG: Final = 4096
"""Accept queue of a worker's listener; net.core.somaxconn may cut it."""
SYN_AGAIN_SECONDS: Final = 0.9
"""A client sends its SYN again after a second. A worker that has slept for less than this judges what came
meanwhile, and goes on with its dials; one that has slept for longer forgets it all."""
ADDRESSES_CACHED: Final = 4096
"""Addresses whose side (inside, listed) is remembered: a tuple of 200 octets each."""
GATE_TICK_SECONDS: Final = 1.0
"""The gate looks so often for dials that nobody came for."""
ICMP_ERRORS_AT_ONCE: Final = 5
"""ICMP errors that a kernel sends to one address at once, for all workers together: Linux has six
(XRLIM_BURST_FACTOR), and may have sent one of its own."""
ICMP_CLIENTS: Final = 4096
"""Clients of which a worker remembers when they were told by such an error, some 150 octets each."""
ACCEPT_REST_SECONDS: Final = 0.05
"""A listener without descriptors left is looked at again after so long."""

# How much a worker takes on ---------------------------------------------------------------------------

SESSIONS: Final = 12_000
"""Sessions of one worker at a time, at some 20 KB each; fewer where descriptors would not suffice for them.
Beyond, new connections pass as without us."""
SESSIONS_PER_SOURCE: Final = 4_000
"""The same of one source (`intercept.counted` says what that is): a third, so that no single one can fill the
worker."""
DESCRIPTORS_KEPT: Final = 512
"""Of a process's descriptors so many are for dials, files and the queue; the others make sessions."""
SPARE_DESCRIPTORS: Final = 64
"""Kept for clients that were let in when the others ran out: what comes in one turn of the loop, and some."""
CONNECTS: Final = 8192
"""Dials of one worker under way, or connected and not yet claimed; twice the SYNs that it holds."""
CONNECTS_PER_SOURCE: Final = 1024
"""The same for one source: an inside host that tries a thousand dead addresses at once is no mail server."""
AWAITED: Final = 1 << 16
"""SYNs taken whose clients have not been accepted yet, about 400 octets each. Only a flood has so many in
`UNCLAIMED_SECONDS`: most of them forged, so there is no limit per source, which could be forged as well."""
STRANGERS_SHARE: Final = 0.75
"""Of these limits, and of the handshakes, for sources that never upgraded: they pass in clear first."""
FAR_OVER_SHARE: Final = 2.0
"""Of the sessions' limits: whoever comes so far over them, by SYNs sent long before he answers, is reset."""
HANDSHAKES_PER_SECOND: Final = 1000
"""Offers of one worker: more than it can carry sessions through, so that only a flood of them meets it."""
HANDSHAKES_PER_SOURCE: Final = 400
"""The same to one source: less than half of what a core does in handshakes alone."""
HANDSHAKE_BURST_SECONDS: Final = 2.0
"""After a rest so many seconds' worth may come at once."""
HANDSHAKE_SOURCES: Final = 4096
"""Sources whose rate is remembered, 200 octets each; a forgotten one begins anew, within the total."""
HELD_OCTETS: Final = 256 * 1024 * 1024
"""Octets that wait in one worker, for slow sockets and for decisions; beyond, sessions of which some wait are
not read."""
HELD_OCTETS_PER_SOURCE: Final = 64 * 1024 * 1024
"""The same for one source: 128 of its sessions with full buffers both ways."""
READ_WHEN_OVER_OCTETS: Final = 4 * 1024
"""One read of a session that is over it: what one read brings may have to wait as well."""
PIECE_OCTETS: Final = 4 * 1024
"""What waits for a socket lies in pieces of half as much on average, however small they came: one octet in a
piece of its own takes 350 of memory."""
OVERLOAD_TOLD_SECONDS: Final = 60.0
"""A worker tells the supervisor of the same limit, or of what keeps it from dialling, so often at most."""

# Channels that break off ------------------------------------------------------------------------------

BROKEN_CHANNELS: Final = 3
"""In a row at one destination, in one worker, before the alarm rings; one that ends in order ends the run."""
BROKEN_CHANNELS_SECONDS: Final = 600
"""So long it must have been so: a gateway over there that stops breaks all its sessions at once. Postfix
comes again after 300 s, and after 600 s more."""
BROKEN_CHANNELS_COUNTED: Final = 4096
"""Destinations that one worker counts, some 200 octets each."""

# Dead ends, and clients that ignore offers ------------------------------------------------------------

DEAD_END_AFTER_SESSIONS: Final = 8
"""Sessions in a row to one server that were offered nothing, in one worker, before it is a dead end. Once it
was one, a single session makes it one again."""
DEAD_ENDS: Final = 8192
"""In the kernel, each family, some 100 octets each."""
DEAD_ENDS_COUNTED: Final = 4096
"""Servers whose sessions in clear one worker counts."""
SOURCES_IGNORING: Final = 8192
"""Sources whose ignored offers a worker counts, some 150 octets each; who is forgotten gets offers again."""
NEIGHBOURS_CACHED: Final = 1024
"""Networks of which a worker keeps in mind whether somebody there has upgraded."""
SPARED_RUNS_AT_ONCE: Final = 32
"""The kernel is told of dead ends, and of clients that rest, by so many runs of nft in one go, 6 ms each: the
rules are looked after in between."""
SPARED_COUNTED_EVERY_SECONDS: Final = 5.0
"""So often the kernel is asked how many SYNs passed so."""
SPARED_FOUND_AGAIN_SECONDS: Final = 150.0
"""What a worker finds again though the kernel was told of it so long ago the kernel has lost, with our whole
table; sessions that were begun before have been decided by then (`DIAL_SECONDS`)."""

RESTING: Final = 1 << 15
"""Clients, each with a server that it comes to, that rest in the kernel, each family, 240 octets each."""
RESTING_SECONDS: Final = 1800
"""So long, as dead ends: then a session is looked at, and one that still gets no offer is enough. It costs
one session of all that come within this time."""
UNANSWERED_SECONDS: Final = 5
"""A SYN of theirs that comes again within this time, and that no server has answered, is judged after all: a
filter drops what passes by us. Clients send theirs again after one second, or three."""
RESTING_TOGETHER: Final = 128
"""The kernel is told of so many by one run of nft, in some 10 ms."""
RESTING_GATHERED_SECONDS: Final = 1.0
"""So often at most: a run of nft costs as much as ten sessions that are spared, and a site with thousands of
clients has some dozen new ones in a second."""
MET_SECONDS: Final = 60
"""So long no client rests at the gate behind a first upgrade: by then the daemon has emptied the sets. Nor
does it put anybody in meanwhile, for a worker may not have heard of it yet. Nothing is lost by that: all are
counted from the beginning."""

# A worker's loop --------------------------------------------------------------------------------------

BUG_TOLD_SECONDS: Final = 60.0
"""A worker tells of a callback that fails by a bug so often at most: it may do so in every turn."""
ALIVE_EVERY_SECONDS: Final = 0.1
"""A worker proves its event loop alive so often."""
READS_BEHIND_ALIVE_SECONDS: Final = 0.2
"""No read begins so long after the last proof, before the next: many peers that send the smallest records
(one read of them takes about 60 ms) must not make a worker look hung, and mail pass it by."""
EVENTS_PER_TURN: Final = 256
"""Sockets that are served in one turn of the loop, before its timers and other descriptors get theirs."""
KEPT_IN_TURN_OCTETS: Final = 8 * 1024
"""Octets for one socket that wait for such a turn's end, so that sending them interrupts nothing: commands,
replies, small mails. Of more octets, most of the time is the sending."""
CANCELLED_TIMERS: Final = 100
"""So many cancelled timers of a worker's are not worth looking for among the others."""
GC_OBJECTS: Final = 20_000
"""New objects after which a worker looks for cycles: some hundred sessions' worth."""

# Workers' lives ---------------------------------------------------------------------------------------

HUNG_AFTER_SECONDS: Final = 0.35
"""The supervisor takes a worker's queue out of the rules after so long without proof (0.5 s in all)."""
VOUCHED_MILLISECONDS: Final = 800
"""The kernel itself lets SYNs pass by the gate when a worker that serves has not been heard of for so long:
for when the supervisor is frozen as well. More than the supervisor takes for one hung worker (0.5 s in all,
and 0.1 s to change the rules), or the mail of all workers would pass in clear because of it; less than the
second that the kernel of a client waits with its next SYN. In a pause of the daemon that is longer, and would
else be a delay only, mail passes in clear, and is counted as `bypassed`."""
KILL_HUNG_AFTER_SECONDS: Final = 10.0
"""A worker hung for so long is killed: its clients get a reset instead of waiting for their own timers."""
READY_SECONDS: Final = 60.0
"""The service manager is told that we are ready when connections come to a worker, or after so long: what it
holds back for us (the network, mail servers) must not wait for workers that do not come up; mail passes."""
WATCH_SECONDS: Final = 0.05
"""The supervisor looks so often at the workers' proofs of life."""
START_SECONDS: Final = 180.0
"""A worker that is not ready after so long is killed and started anew. Long, or a slow and busy machine would
never have one: each new one begins from nothing. Mail passes meanwhile either way."""
RESTART_SECONDS: Final = 0.05
"""A worker that died is started again after so long, doubling up to `RESTART_MOST_SECONDS`."""
RESTART_MOST_SECONDS: Final = 5.0
"""A worker that dies at every start must not eat the machine; mail is direct meanwhile."""
STABLE_SECONDS: Final = 10.0
"""A worker that lived so long starts again at once when it dies."""
STOP_SECONDS: Final = 20.0
"""A stopping worker lets its sessions finish for so long, then resets them; the senders try again."""
ENDING_SECONDS: Final = 1.0
"""It has so long for that, and for its last lines in the log; then it is killed."""
RETIRE_SECONDS: Final = 3.0
"""How long a retiring worker finishes dials of SYNs it holds before it lets them pass: their clients' second
retransmission comes then, and goes to its successor."""
DRAIN_AWAITED_SECONDS: Final = 5.0
"""A worker that takes nothing new waits so long for clients that it let in and that have not come: the
kernel's third answer to their SYN goes out after 3 s. Whoever comes later is reset; most were forged."""
YIELD_SECONDS: Final = 3.0
"""A worker that drains asks the signer for so long: its last clients have said EHLO by then. Then its slot
is a successor's."""
RELOAD_SECONDS: Final = 20.0
"""How long the new program has to say whether it takes the configuration; only an operator waits for it."""
WORKERS: Final = 16
"""Half of the marks' 32 slots: the other half is for the generation that hands over."""
NUMBERS_IN_A_ROW: Final = 32
"""Queues and listen ports of all workers and of the generations that hand over, from the first one on."""
LAST_FIRST_QUEUE: Final = 65536 - 32
"""Highest first queue: NFQUEUE numbers are u16."""
LAST_FIRST_LISTEN_PORT: Final = 65536 - 32
"""Highest first listen port."""
SPARE_USER: Final = 61_000
"""A user's number for workers where their own user was not made. Debian and systemd use none from 60,706 to
61,183. The signer's is the next one,"""
SPARE_USERS: Final = 180
"""and the search ends so far behind it."""

# What processes say to each other ---------------------------------------------------------------------

LINK_MESSAGE_OCTETS: Final = 128 * 1024
"""One message between supervisor and worker; counters are the largest (some KB)."""
CONFIG_OCTETS: Final = 120 * 1024
"""What of that a configuration may take in a worker's order; some thousand networks in its lists."""
LINK_MESSAGES_PER_TURN: Final = 64
"""Messages taken from one link per turn of the loop,"""
LINK_TURN_SECONDS: Final = 0.02
"""and no other one behind that: each peer that is new costs a write of some 5 ms, and a supervisor that is
away for longer judges no worker that hangs, for it may be its own sleep."""
UNHEARD_KEPT: Final = 256
"""Alarms, and peers to be remembered, that wait in a worker whose link is full; a few hundred octets each."""
UNHEARD_OCTETS: Final = 16 * 1024
"""A longer one does not wait: it may be more than the link ever takes."""
SAID_TEXT_LETTERS: Final = 16 * 1024
"""One text in a worker's message: a whole EHLO reply and more."""
SAID_SUBJECT_LETTERS: Final = 256
"""Whom an alarm of a worker's is about: an address and port, a function's name. The bell keeps 4,096."""
SAID_LAYERS: Final = 16
"""Layers of its confinement that a worker may name; there are five."""
COUNTER_NAMES: Final = 256
"""Different counters of one kind that a worker may tell of: twice as many as there are reasons."""
COUNTERS_EVERY_SECONDS: Final = 1.0
"""A worker reports its counters so often; `status` is at most so old."""
CONTROL_REPLY_OCTETS: Final = 1 << 20
"""The answer on the control socket; a larger one is not read."""
CONTROL_SECONDS: Final = 3.0
"""`nightmail status` waits so long for the daemon."""
ANSWER_SECONDS: Final = 30.0
"""The daemon may work so long on an answer: as RELOAD_SECONDS and ALARM_COMMAND_SECONDS at least."""
CONTROL_LOOK_SECONDS: Final = 1.0
"""The supervisor looks so often whether its sockets can still be found: who asks meanwhile gets no answer."""
ASKED_MOST_SECONDS: Final = 31_536_000.0
"""What a command may be told to wait: a year, which no clock or timer is too small for."""
INQUIRY_SECONDS: Final = 1.0
"""A question to all workers waits so long for their answers; who hangs must not keep the others' back."""
UNIX_SOCKET_PATH_OCTETS: Final = 107
"""The longest path of a Unix socket (sun_path is 108, with its end)."""
SOLE_ASKERS: Final = 16
"""Who asks whether a daemon is here waits in a row of so many,"""
SOLE_ASKED_SECONDS: Final = 1.0
"""from which one is let go in this time: who knocks without end costs no more."""
KEEPER_RESTS_SECONDS: Final = 1.0
"""Before something that keeps the daemon's affairs, and has failed by a bug, begins again: no spinning."""
COLLECT_SECONDS: Final = 5.0
"""The supervisor collects garbage so often, some thousand objects by then."""

# The signer, and the identity -------------------------------------------------------------------------

SIGN_SECONDS: Final = 1.0
"""An offer waits so long for its signature, on a machine that does nothing else some 0.2 ms; then the reply
passes without one. No mail server notices a second here (RFC 5321 4.5.3.2 lets it wait for 5 minutes)."""
SIGNATURES_LOST_SECONDS: Final = 5.0
"""A signature asked for so long ago will not come. Until then no other is asked for once one is late, so that
sessions do not all wait for a signer that does not answer."""
SIGNATURES_PER_SECOND: Final = 2000
"""Signed for one worker, more than its loop can open sessions: who asks for more is no gateway's worker."""
SIGNER_KEEPS_SECONDS: Final = 600
"""An identity that was switched off signs for so long for sessions that began before."""
SIGNER_HUNG_AFTER_SECONDS: Final = 3.0
"""A signer that says nothing for so long hangs, by three of its reports; it is killed as a worker is."""
SIGNER_START_SECONDS: Final = 10.0
"""Workers take no SYN before the signer is up, so that their first sessions have offers; but no longer."""
IDENTITY_LOOK_SECONDS: Final = 1.0
"""The daemon looks so often whether a command has changed the identity, or a rotation is due."""
IDENTITY_LOCK_SECONDS: Final = 5.0
"""Waiting for another process that changes the identity; it needs milliseconds."""
IDENTITY_FILE_OCTETS: Final = 16 * 1024
"""An identity file or an export: under 2 KB; a larger one is another file."""
ROTATION_ANNOUNCE_DAYS: Final = 14
"""A new identity is announced so long before it is used: peers that write every two weeks learn ahead."""
ROTATION_ANNOUNCE_MOST_DAYS: Final = 90
"""A longer announcement is a mistake: a key that waits can be stolen."""
EXPORT_KDF_PASSES: Final = 3
"""Argon2id for an exported identity: libsodium's MODERATE. Half a second here for one guess,"""
EXPORT_KDF_OCTETS: Final = 256 * 1024 * 1024
"""and so much memory: what a small box has, and many guesses at once do not."""
EXPORT_KDF_MOST_PASSES: Final = 16
"""An export that asks for more is none of ours, and would keep the machine busy."""
EXPORT_KDF_MOST_OCTETS: Final = 1024 * 1024 * 1024
"""The same for its memory."""
PASSPHRASE_LETTERS: Final = 12
"""The shortest passphrase of an export: the file may be copied and guessed at for ever."""
PASSPHRASE_OCTETS: Final = 1024
"""The longest one; a larger file holds something else."""

# Rules in the kernel, and what the kernel remembers ---------------------------------------------------

TOOL_SECONDS: Final = 30.0
"""iptables-restore and nft need milliseconds, and seconds where a slow machine loads the kernel's modules for
them; one that has not ended by then hangs on something."""
SERVICE_SECONDS: Final = 330.0
"""systemctl waits for the service, which has 300 s to come up and 90 s to end (nightmail.service)."""
RULES_LOCK_SECONDS: Final = 5
"""Old iptables holds one lock for all: another firewall tool may have it for so long."""
TAKEN_OPENING_SECONDS: Final = 60
"""So long the kernel remembers a taken SYN without a later packet: all retransmissions of SYN-ACKs."""
TAKEN_IDLE_SECONDS: Final = 900
"""The same once packets have followed; mail servers stay silent for 10 minutes (RFC 5321 4.5.3.2)."""
TAKEN_CONNECTIONS: Final = 1 << 18
"""Connections so remembered, each family; beyond, only the answer to a SYN cookie is not recognised."""
GONE_SECONDS: Final = 10
"""On a bridge: so long the kernel remembers that a connection has no socket, to lead the reset for it out."""
MAC_FRESH_SECONDS: Final = 5
"""On a bridge, the MAC of an address counts so long as freshly seen; another one is learned at once. So
long it may take until one is learned again that it had before."""
MAC_NOW_SECONDS: Final = 30
"""So long it is kept, once a SYN has shown it."""
MAC_LAST_SECONDS: Final = 3600
"""And so long for a connection of ours that is silent: more than TAKEN_IDLE_SECONDS."""
MAC_SIDE_SECONDS: Final = 7200
"""On which side of the bridge a station is, is remembered longer than its MAC is used."""
MAC_FRESH: Final = 1 << 15
"""MACs of addresses that count as freshly seen, each family and direction. Forged SYNs fill this; then mail
passes in clear. Less than MAC_ADDRESSES has room for in MAC_NOW_SECONDS."""
MAC_ADDRESSES: Final = 1 << 18
"""Addresses whose MAC is remembered, each family and direction."""
MAC_STATIONS: Final = 1 << 14
"""Stations of both cables: as many as a large switch knows."""
RULES_CHECK_SECONDS: Final = 0.5
"""The supervisor looks so often whether all of our rules still stand."""
RULES_TOLD_REST_SECONDS: Final = 0.2
"""Told of a change of the rules, the supervisor looks at once, and again so long later at the soonest: others
may change theirs all the time, and a look costs some 50 ms of one processor. Until it has put back what is
gone, sessions under way can go out in clear."""
RULES_MEND_TRIES: Final = 5
"""Others may still take rules away while ours are put back, and the tool then fails: it is looked at again so
often, some 0.1 s each, before all is put in anew and what our tables remember of connections is lost."""
RULES_NEWS_OCTETS: Final = 64 * 1024
"""What the kernel tells of a change of the rules is read in such pieces, and not looked at."""
RULES_HAND_SECONDS: Final = 0.3
"""A look of the daemon waits so long for the hand of a command, which is at the rules for less: what somebody
else removes meanwhile is back within a second, though that command were stopped for good."""
RULES_HAND_OF_COMMAND_SECONDS: Final = 2.0
"""A command waits so long for the daemon's: what was removed is put back in less, on a slow machine too."""
RULES_HAND_ASKED_SECONDS: Final = 0.01
"""Who waits for the other's hand looks so often."""
RULES_CHECKS_AWAITED: Final = 8
"""`up` gives a running daemon so many of its looks at the rules to put them in."""
RULES_ASKED_SECONDS: Final = 0.05
"""Who waits for the daemon to have put its rules in, or out, looks so often."""
DOWN_SECONDS: Final = 40.0
"""`down` waits so long for a running daemon to have ended its sessions (STOP_SECONDS and ENDING_SECONDS) and
taken its rules out, on a slow machine too."""
OBEYING_SECONDS: Final = 6.0
"""A daemon that does not say within this time how far it is, hangs: a reload is there again in less."""
HURRIED_DOWN_SECONDS: Final = 10.0
"""The same where it was interrupted, and sessions are reset at once."""
TURN_SECONDS: Final = 10.0
"""`up` and `down` wait so long for another one to end: more than either needs, but where it starts
the service or lets sessions end, for which a person would not want to wait without a word."""
INSIDE_LOOK_SECONDS: Final = 2.0
"""The supervisor looks so often which networks lie inside: at boot it is up before their addresses are."""
INSIDE_NETWORKS: Final = 2000
"""Read from routes: what fits in one message to a worker, also in IPv6. Who has more names them."""
INSIDE_LOOK_REST: Final = 50
"""After a look that took long it rests so many times as long: a full routing table has a million routes."""
BYPASS_COUNT_EVERY_SECONDS: Final = 2.0
"""The kernel's counters behind the gate are read so often, at a look at the rules."""
TTL_KEPT_SECONDS: Final = 600
"""The kernel remembers the TTLs of far servers' SYN-ACKs: ways may change, but not within one session."""
RESETS_KEPT_SECONDS: Final = 180
"""The same of whose resets were odd: as long as all dials of a session can take."""
TTL_SERVERS: Final = 1 << 16
"""Servers so remembered, each family, 100 octets each; beyond, all of a server's resets look odd."""
RESETS_ASKED_PER_SECOND: Final = 5
"""The kernel is asked about resets so often at most, so many at once: two runs of nft each, some ms."""
WANTED_FILE_OCTETS: Final = 4096
"""What the operator wants is one short line; a file that is longer is not ours."""

# The memory of peers and of clients -------------------------------------------------------------------

CHECKED_BY_READERS_OCTETS: Final = 8 * 1024 * 1024
"""A worker that opens a memory of peers of so much looks it through, in some 10 ms. With a million peers that
takes 0.5 s, and who stands still for so long counts as hung: a larger file its writer alone looks through."""
STORE_CACHE_OCTETS: Final = 32 * 1024 * 1024
"""Pages of the memory of peers that a process keeps: of a million peers the inner ones are 4 MB, and the rest
those of some thousand peers, the ones that mail goes to. Taken as they are read: a small file costs few."""
PIN_LAST_SEEN_SECONDS: Final = 3600
"""A pin's last_seen is written so often at most, so that a session costs no disk write."""
PEERS_COUNT_REST: Final = 1000
"""After all peers were counted (0.4 s where there are a million) they are not for so many times as long."""
HISTORY_PER_PIN: Final = 64
"""Events kept of one destination, some 100 octets each: years of a quiet peer, months of a restless one."""
STORE_BUSY_SECONDS: Final = 0.1
"""Waiting for another process's write to the pins; it stops the event loop, and a write takes about 1 ms."""
STORE_OPEN_SECONDS: Final = 2.0
"""Waiting for another process that is making or mending the pins' file, at start only."""
FAILURE_KEPT_SECONDS: Final = 7 * 24 * 3600
"""A failed path not tried since is forgotten, so that the table does not grow for ever."""
LOOKS_PER_PIN: Final = 4
"""Faces of one address (a pool of servers) that are remembered, to tell a change from a colleague."""
LOOK_OCTETS: Final = 2048
"""Of a reply, for how its server looks: it stays on disk with the pin, and a server writes what it likes."""
LOOK_AGAIN_SECONDS: Final = 3600
"""A pin learns a new face so often at most, so that a server that never looks alike costs no disk write."""
TROUBLE_AGAIN_SECONDS: Final = 3600
"""The same trouble with the same peer is written so often at most."""
SOURCES_UPGRADED: Final = 1 << 16
"""Clients remembered for having upgraded, about 100 octets each; the least recently seen go first."""
SOURCES_HARMED: Final = 4096
"""Clients remembered for having dropped an offer. A bound of its own: strangers must not push out peers."""
SENDERS: Final = 1 << 16
"""Identities of sending gateways whose highest epoch is remembered, about 100 octets each."""
SOURCES_NEW_OF_NETWORK: Final = 512
"""Clients with a gateway and their identities, or clients that drop offers, that are learnt of for the first
time in one day in one network (/24, or /48 with IPv6): whoever has a whole one takes longer to fill the
places of clients than his are kept, and 128 days for those of identities."""
NEWCOMER_NETWORKS: Final = 1 << 14
"""Networks whose new ones are counted, some 250 octets each."""
SOURCE_KEPT_DAYS: Final = 60
"""A client that has not upgraded for so long did give up its gateway, and its bell has rung often enough."""
HARMED_KEPT_DAYS: Final = 7
"""A client that dropped an offer and was not seen since is forgotten."""
SOURCES_WRITE_SECONDS: Final = 1.0
"""What was learnt of clients is written so often, all at once: strangers must not make the disk work."""
SOURCES_PENDING: Final = 4096
"""Clients learnt of between two such writes; beyond, nothing is learnt."""
SOURCE_CACHE_SECONDS: Final = 10.0
"""So old a worker's picture of a client may be; nothing that hurries depends on it."""
SOURCE_CACHE_ENTRIES: Final = 4096
"""Clients, and identities of sending gateways, that a worker keeps in mind."""
PIN_CACHE_SECONDS: Final = 1.0
"""So old a worker's picture of one pin may be; what a `peers` command changes is seen after it."""
PIN_CACHE_DESTINATIONS: Final = 4096
"""Destinations whose pin (or that there is none) a worker keeps in mind."""
DAYS_KEPT: Final = 56
"""Counts of sessions are kept for so many days: eight weeks, some 20 rows a day."""
DAYS_IN_WEEK: Final = 7
"""What `status` calls this week: today and the days before it."""
DAYS_WRITE_SECONDS: Final = 10.0
"""Counts of sessions are written so often, where there is something new: a crash costs no more of them."""

# Log, alarms, metrics ---------------------------------------------------------------------------------

ENV_TEXT_OCTETS: Final = 200
"""Text from elsewhere (a peer, the kernel) in one log field, after escaping."""
ALARM_COMMAND_SECONDS: Final = 30.0
"""An alarm's command, or sendmail, has so long; then it is killed with its whole group."""
ALARM_SERVER_SECONDS: Final = 25.0
"""One answer of the mail server that alarms go to: less than its process gets, which says who hangs."""
ALARM_PART_SECONDS: Final = 1.0
"""Its answer to QUIT, behind which nothing is left to be known."""
ALARMS_CLOSE_SECONDS: Final = 5.0
"""At a stop alarms that wait for their command have so long."""
ALARM_PAUSE_SECONDS: Final = 60.0
"""Until an alarm that could not be told is tried again; doubled each time. A mail server restarts in less."""
ALARM_PAUSE_MOST_SECONDS: Final = 3600.0
"""One that is down for long is asked once in an hour."""
ALARMS_WAITING: Final = 64
"""Alarms that wait for their command, or for its next try; beyond, the oldest is left out."""
ALARMS_OUT_PER_HOUR: Final = 30
"""More alarms than that are no news to a person; all of them stand in the log."""
ALARMS_OF_NETWORK_ONE_IN: Final = 6
"""Of those that go to people one in so many is about clients of one network (/24, or /48 with IPv6)."""
ALARM_AGAIN_SECONDS: Final = 24 * 3600
"""The same alarm for the same cause rings so often at most."""
ALARM_CAUSES: Final = 4096
"""Causes remembered by the bell of one process, half of them about clients at most where others want the
place; beyond, the one that rang longest ago is forgotten."""
ALARM_DETAIL_CHARACTERS: Final = 300
"""Of an alarm's detail the bell keeps so much: a file, a key and what is wrong with it."""
ALARMS_IN_DETAIL: Final = 256
"""`status` tells details of the newest so many alarms: with all of them the answer would be too long."""
MANY_MISSING: Final = 5
"""So many pinned sites without an offer within an hour, in as many networks, and more than still make one: it
is our own path."""
MANY_MISSING_SECONDS: Final = 3600
"""That hour."""
LOG_LINE_OCTETS: Final = 2000
"""A whole log line; syslog and journald take more, terminals and people do not."""
LINES_OF_SYNS_PER_SECOND: Final = 50.0
"""Of one worker, on SYNs from outside that came to nothing: forged ones cost nothing, and a journal that gets
some thousand lines drops all others with them (journald's RateLimitBurst=)."""
LOG_BUFFER_LINES: Final = 512
"""Lines kept for the next flush; a slow log never makes memory grow, lost lines are counted."""
LOG_SEND_SECONDS: Final = 0.05
"""All lines of one flush wait so long for a full socket of journald or syslog: the loop waits with them."""
LOG_FLUSH_SECONDS: Final = 0.2
"""The supervisor's log goes out so often."""
METRICS_EVERY_SECONDS: Final = 1.0
"""The text of the metrics is made so often at most, however often it is asked for: some ms of the loop."""
METRICS_SECONDS: Final = 3.0
"""Whoever asks for metrics has so long for question and answer."""
METRICS_CONNECTIONS: Final = 16
"""Open at once; collectors are few, and all of them are on this machine."""
METRICS_REQUEST_OCTETS: Final = 8 * 1024
"""Of one request with its headers."""

# The configuration, and commands ----------------------------------------------------------------------

HOUR_SECONDS: Final = 3600
"""Of the configuration, which counts in hours."""
DAY_SECONDS: Final = 24 * HOUR_SECONDS
"""Days are UTC days counted from 1970-01-01; leap seconds do not matter here."""
CONFIG_FILE_OCTETS: Final = 256 * 1024
"""A configuration file; a larger one is a mistake (`config = /dev/zero`). 13,000 networks fit in."""
CONFIG_LINE_DOTS: Final = 512
"""Dots in one of its lines (170 addresses): a key of n parts costs the parser n * n."""
RELOAD_LOOK_SECONDS: Final = 0.05
"""`reload` asks so often whether the new workers serve."""
PING_SECONDS: Final = 30.0
"""`ping` gives up after so long, whatever it waits for: greetings may take their time, people have less."""
PING_PART_SECONDS: Final = 1.0
"""Its own end is said; so long it waits for the other one."""
PING_KEYWORDS: Final = 32
"""Keywords of a server that it shows; servers announce about ten."""
PING_TEXT_OCTETS: Final = 64
"""Of one such keyword, or of the server's name."""
WATCH_EVERY_SECONDS: Final = 1.0
"""`status --watch` looks so often: workers report once a second."""
WATCH_EVERY_LEAST_SECONDS: Final = 0.2
"""More often nothing is new, and the supervisor has other work."""
WATCH_LOOKS: Final = 6
"""`status --watch` tells rates over so many looks: one alone would flicker."""
WATCH_ALARMS: Final = 3
"""Of them, on that screen; they stand above what a small terminal cuts off."""
WATCH_PEERS: Final = 12
"""Peers that it shows: with all else a terminal of 40 lines is full."""
TRIAL_SECONDS: Final = 4.0
"""The doctor's trial connection waits so long for each step: two retransmissions of a SYN."""
CONNTRACK_FULL_SHARE: Final = 0.8
"""Of the kernel's table of connections: beyond, a busy hour fills it."""
CONNTRACK_LEAST: Final = 16_384
"""A smaller table of connections is none for a machine on everybody's path: the kernel's own for 64 MB."""
STATE_FREE_OCTETS: Final = 4 * 1024 * 1024
"""The state directory needs so much room: the memory of peers, its journal, and one more of it."""
CLOCK_BEHIND_SECONDS: Final = 24 * 3600
"""A clock that is a day behind what it has stamped itself is wrong, not late: peers count keys by days."""
JUMPS_FOLLOWED: Final = 16
"""The doctor follows other firewalls' rules through so many jumps; nft allows no more
(NFT_JUMP_STACK_SIZE)."""
LISTENER_END_SECONDS: Final = 10.0
"""The listener of `audit` is given so long to end, once it is told to."""
