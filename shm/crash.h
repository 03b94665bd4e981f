/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash points: named moments at which a process may be killed in a test.
 *
 * A point stands behind each store that another process or a successor can see, and before those
 * that decide something. In a normal build it is nothing at all. With -DTICKLINE_CRASH_POINTS
 * (`make crash`) it calls crash_hook, which a test may set; by default it obeys the environment:
 *
 *   TICKLINE_CRASH=ring:after_publish:17            SIGKILL at the 17th pass, in whatever process
 *   TICKLINE_CRASH=worker0/ring:after_publish:17    only in the stage of this name
 *
 * A stage dies of it in its first generation alone, so that a successor can be watched.
 *
 * The list below is the only one: tests go through it and fail where a point was never passed, and
 * `make lint` where the list and the sources differ.
 */
#ifndef TICKLINE_SHM_CRASH_H
#define TICKLINE_SHM_CRASH_H

/* X(label, what has just happened) */
#define CRASH_POINTS(X)                                                                            \
    X("ring:producer_attached", "a producer has found its head in the slots")                      \
    X("ring:consumer_attached", "a consumer has found its tail")                                   \
    X("ring:resumed", "a stage has found its place from its output")                               \
    X("ring:credit_out", "the producer's credit has run out, it is about to read the tail")        \
    X("ring:claimed", "a slot is claimed, nothing is written into it")                             \
    X("ring:before_publish", "all claimed slots are filled, none is published")                    \
    X("ring:word_published", "one more of the claimed slots is published")                         \
    X("ring:hint_stored", "the hint `seen` is stored")                                             \
    X("ring:after_publish", "all claimed slots are published")                                     \
    X("ring:peeked", "a message was found")                                                        \
    X("ring:before_commit", "what was read is about to be given back")                             \
    X("ring:after_commit", "the tail has moved")                                                   \
    X("ring:parked", "the consumer has said that it sleeps, and does not yet")                     \
    X("ring:bell_stored", "the bell has moved, nobody is woken yet")                               \
    X("state:before_begin", "a handler is about to change its state, and nothing says so")         \
    X("state:begun", "the state says for which input it is changed, nothing of it is")             \
    X("state:before_copy", "an output is published, its changes of the state are in one copy")     \
    X("state:copied", "one more of them is in both")                                               \
    X("state:settling", "a successor is about to take the changed copy")                           \
    X("state:undoing", "a successor is about to take the unchanged copy")                          \
    X("state:undone", "it has taken it, and nothing says so")                                      \
    X("state:recovered", "both copies of the state are what is published")                         \
    X("cell:before_move", "the state is about to change")                                          \
    X("cell:after_move", "the state has changed")                                                  \
    X("cell:copy_begun", "the sequence is odd, the figures are the old ones")                      \
    X("cell:copied", "the figures are the new ones, the sequence is odd")                          \
    X("cell:published", "the sequence is even again")                                              \
    X("lane:abandoned_found", "a predecessor's open sub-buffer is scanned, not sealed")            \
    X("lane:attached", "the owner has sealed what was open and knows its counts")                  \
    X("lane:seal_begun", "a sub-buffer is about to be sealed")                                     \
    X("lane:seal_packet", "its header says how much it holds")                                     \
    X("lane:seal_counted", "its records are counted in the lane")                                  \
    X("lane:sealed", "it is the tracer's")                                                         \
    X("lane:open_packet", "the next sub-buffer has a header, it is not open")                      \
    X("lane:open_cleared", "its first record is cleared")                                          \
    X("lane:opened", "it is open")                                                                 \
    X("lane:high_bits", "an empty open sub-buffer has other high bits of the request")             \
    X("lane:discarded", "a record had no room, and is counted")                                    \
    X("lane:wide_words", "value and extra of a wide record are written, nothing else of it")       \
    X("lane:record_words", "a record is written but for its tsc")                                  \
    X("lane:record_done", "its tsc is stored, it stands")                                          \
    X("lane:append_words", "a plain record is written but for its first word")                     \
    X("lane:append_done", "its first word is stored, it stands")                                   \
    X("lane:seal_asked", "the owner has seen that the tracer wants a seal")                        \
    X("lane:close_sealed", "the last sub-buffer is sealed, the lane is not closed")                \
    X("lane:closed", "the lane is closed")                                                         \
    X("file:created", "a trace file exists")                                                       \
    X("file:empty_written", "a packet without events is written")                                  \
    X("file:before_write", "a sub-buffer is about to be written")                                  \
    X("file:after_write", "it is written, nobody knows")                                           \
    X("file:drained", "it is the owner's again")                                                   \
    X("file:finish_begun", "the file is about to be made whole")                                   \
    X("file:last_cut", "its last packet has its short size")                                       \
    X("file:discards_written", "discards after the last record are said")                          \
    X("file:gap_closed", "a block of a plain file stands at its new place")                        \
    X("file:truncated", "the file is cut to what is written")                                      \
    X("file:metadata_written", "the metadata is written, under another name")                      \
    X("file:metadata_renamed", "the metadata is in place")                                         \
    X("worker:got", "an output slot is claimed for a request")                                     \
    X("worker:made", "the output is written, not published")                                       \
    X("worker:put", "the output is published, the input still counts as unread")                   \
    X("worker:burst_done", "outputs of a burst are published, its inputs not committed")

/* The same for points that are passed with sockets alone, in whole runs. */
#define CRASH_POINTS_OF_SOCKETS(X)                                                                 \
    X("rx:issued", "a request has its number, and nothing else")                                   \
    X("rx:recorded", "it is stamped and recorded")                                                 \
    X("rx:dropped", "its ring was full, that is counted")                                          \
    X("rx:filled", "its slot is filled, not published")                                            \
    X("rx:put", "it is published")                                                                 \
    X("receiver:received", "the kernel has filled messages, nobody has looked")                    \
    X("receiver:held", "the batch is noted (io_uring)")                                            \
    X("receiver:marked", "the next batch's mark is written, this one still holds")                 \
    X("receiver:spent", "nobody needs the batch any more")                                         \
    X("receiver:cleared", "its buffers are marked untaken")                                        \
    X("receiver:taking", "the next batch may come")                                                \
    X("tcp:reserved", "a free place has the number of the connection that is accepted next")       \
    X("tcp:accepted", "a connection is accepted, and exists in rx alone")                          \
    X("tcp:deposited", "the launcher has it, its place is free still")                             \
    X("tcp:cleared", "nothing is left at its place of the connection before")                      \
    X("tcp:opened", "its place is open, nobody watches it")                                        \
    X("tcp:received", "the kernel has filled the buffer, or told an error; nobody has looked")     \
    X("tcp:filled", "the bytes count as received, the read is still noted")                        \
    X("tcp:taken", "the next read may come")                                                       \
    X("tcp:copied", "the rest stands at the beginning of the buffer, and where it was")            \
    X("tcp:noted", "which bytes are the next request is noted, not that they are it")              \
    X("tcp:journaled", "that is noted, the request has no number")                                 \
    X("tcp:counted", "the request is put and counted, its bytes are still there")                  \
    X("tcp:consumed", "its bytes are consumed")                                                    \
    X("tcp:doomed", "how a connection ends is noted, its last request is not put")                 \
    X("tcp:tallied", "what the figures become by its end is noted")                                \
    X("tcp:tallied_up", "they are that")                                                           \
    X("tcp:left", "it counts as ended or broken")                                                  \
    X("tcp:released", "the launcher has forgotten it")                                             \
    X("tcp:freed", "its place is free")                                                            \
    X("packet:noted", "what a step makes of place and counts is written, not done")                \
    X("packet:stored", "so is what it makes of a flow")                                            \
    X("packet:stepped", "it is done, its frame not given back")                                    \
    X("packet:given_back", "the place or block is the kernel's again")                             \
    X("tx:sending", "a send is noted, and not begun")                                              \
    X("tx:sent", "the kernel has the reply, or knows of it (io_uring)")                            \
    X("tx:counted", "its outcome is counted")                                                      \
    X("tx:committed", "a ring's tail has moved")                                                   \
    X("tx:completed", "rx can see it")                                                             \
    X("peer:first", "a place of a sender takes no earlier request, the address is the old one")    \
    X("peer:address", "the new address is written, the place is nobody's")                         \
    X("stream:noted", "the place of an output in its connection is written, not yet said")         \
    X("stream:taken", "the output counts as taken")                                                \
    X("stream:written", "the kernel has some bytes of replies, nothing else says so")              \
    X("stream:marked", "an output is complete, not counted")                                       \
    X("stream:renumbered", "an output that waits belongs to the next connection")                  \
    X("stream:down", "a connection is noted as lost, the socket is still the old one")             \
    X("stream:connecting", "the socket connects again, or tries")                                  \
    X("stream:begun", "the queue belongs to the new connection, which is not noted as up")         \
    X("stream:up", "it is noted as up")                                                            \
    X("stream:ended", "all is answered and said to be so, the place is not released")              \
    X("stream:released", "the place is rx's again")

/* Called at every point; a test that sets it before threads or children begin may do as it likes.
 * It is there only where crash points are. */
extern void (*crash_hook)(const char *label);

#ifdef TICKLINE_CRASH_POINTS

/* Says who this process is, for the environment's choice. */
void crash_process(const char *name, unsigned int generation);

#define crash_point(label) crash_hook(label)

#else

#define crash_point(label)              ((void)0)
#define crash_process(name, generation) ((void)0)

#endif
#endif
