/* SPDX-License-Identifier: Apache-2.0 */
#include "client_play.h"

#include "stage/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TURN = 32,         /* operations that become due in one turn, so that replies are read, too */
    LEAD_NS = 1000000, /* from the command to the planned time 0 */
};

static bool is_gone(const struct link *link)
{
    return link->state == LINK_BROKEN || link->state == LINK_ENDED;
}

/* One operation; false where the connection takes no more now. */
static bool perform(struct play *play, struct link *link, uint32_t index)
{
    const struct operation *operation = &play->script->operation[index];
    uint32_t number = operation->connection;
    uint64_t now = clock_monotonic_ns();

    if (operation->kind == OPERATION_OPEN) {
        (void)link_open(play->links, number);
    } else if (operation->kind == OPERATION_CLOSE) {
        link_close(play->links, number);
    } else if (operation->kind == OPERATION_RESET) {
        link_reset(play->links, number);
    } else {
        uint32_t left = operation->length - link->partial;
        const uint8_t *bytes = play->script->data + operation->at + link->partial;
        /* Closed by the script itself: there is nowhere to write. */
        int64_t taken =
            link->state == LINK_OPEN ? link_write(play->links, number, bytes, left) : -1;
        if (taken < 0)
            return true;
        link->partial += (uint32_t)taken;
        if ((uint32_t)taken < left)
            return false;
        link->partial = 0;
        play->sent++;
    }
    play->done_ns[index] = (int64_t)(now - play->begun_ns);
    play->ended_ns = now;
    return true;
}

/* Does what is due on a connection, as far as it goes. */
static void proceed(struct play *play, uint32_t number)
{
    struct link *link = &play->links->link[number];

    while (link->pending < play->due && !link->waits) {
        if (!is_gone(link) && !perform(play, link, link->pending))
            return;
        link->pending = play->script->next[link->pending];
        play->settled++;
    }
}

static void on_ready(void *context, uint32_t number)
{
    struct play *play = context;

    if (play->playing)
        proceed(play, number);
}

int play_init(struct play *play, const struct script *script, struct links *links)
{
    size_t bytes = ((size_t)script->operations + 1) * sizeof *play->done_ns;

    *play = (struct play){.script = script, .links = links, .done_ns = malloc(bytes)};
    if (!play->done_ns)
        return -ENOMEM;
    memset(play->done_ns, 0xff, bytes); /* a page that is touched now faults no more later */
    links->ready = on_ready;
    links->context = play;
    return 0;
}

void play_free(struct play *play)
{
    free(play->done_ns);
}

/* Puts each connection before its first operation from `first` on. */
static void rewind_links(struct play *play, uint32_t first, uint32_t end)
{
    for (uint32_t i = 0; i < play->links->count; i++) {
        play->links->link[i].pending = OPERATION_NONE;
        play->links->link[i].partial = 0;
    }
    for (uint32_t i = end; i-- > first;)
        play->links->link[play->script->operation[i].connection].pending = i;
}

void play_connect(struct play *play, uint32_t first, uint32_t count)
{
    rewind_links(play, first, first + count);
    for (uint32_t i = 0; i < play->links->count; i++)
        play->links->link[i].record = (struct link_record){0};
    for (uint32_t i = 0; i < play->links->count; i++) {
        uint32_t next = play->links->link[i].pending;
        if (next != OPERATION_NONE && play->script->operation[next].kind != OPERATION_OPEN)
            (void)link_open(play->links, i);
    }
}

uint32_t play_waits(const struct play *play)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < play->links->count; i++)
        count += play->links->link[i].state == LINK_CONNECTING;
    return count;
}

void play_begin(struct play *play, uint32_t first, uint32_t count, struct pace pace)
{
    struct timespec real;

    rewind_links(play, first, first + count);
    for (uint32_t i = first; i < first + count; i++)
        play->done_ns[i] = PLAY_NOT_DONE;
    play->pace = pace;
    play->first = play->due = first;
    play->end = first + count;
    play->settled = play->sent = 0;
    play->writes = 0;
    play->playing = true;
    clock_gettime(CLOCK_REALTIME, &real);
    play->begun_ns = play->ended_ns = clock_monotonic_ns() + LEAD_NS;
    play->real_ns = (uint64_t)real.tv_sec * 1000000000u + (uint64_t)real.tv_nsec + LEAD_NS;
}

/* ns from the begin, `writes` having been due before. Other operations than writes have the time of the write
 * behind them where the pace is in writes a second. */
static double planned_ns(const struct play *play, uint32_t index, uint64_t writes)
{
    if (play->pace.factor > 0)
        return (double)play->script->operation[index].planned_ns / play->pace.factor;
    return (double)writes * play->pace.gap_ns;
}

void play_tell(const struct play *play, struct play_record *records)
{
    uint64_t writes = 0;

    for (uint32_t i = play->first; i < play->end; i++) {
        *records++ = (struct play_record){(int64_t)planned_ns(play, i, writes), play->done_ns[i]};
        writes += play->script->operation[i].kind == OPERATION_DATA;
    }
}

bool play_turn(struct play *play)
{
    double now;
    uint32_t first = play->due;

    if (!play->playing)
        return false;
    now = (double)(int64_t)(clock_monotonic_ns() - play->begun_ns);
    while (play->due < play->end && play->due - first < TURN &&
           planned_ns(play, play->due, play->writes) <= now) {
        const struct operation *operation = &play->script->operation[play->due++];
        play->writes += operation->kind == OPERATION_DATA;
        proceed(play, operation->connection);
    }
    if (play->settled == play->end - play->first)
        play->playing = false;
    return play->due != first;
}

void play_halt(struct play *play)
{
    play->playing = false;
}
