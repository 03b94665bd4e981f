/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/feed.h"

static const struct feed_figures *figures_of(const struct feed *feed, uint64_t version)
{
    return &feed->figures[version % 2];
}

/* The datagram's feed, or the first free entry, or the one that all others share. */
static struct feed *find(struct feeds *feeds, const struct feed_datagram *datagram)
{
    for (uint32_t i = 0; i < FEEDS_MAX; i++) {
        struct feed *feed = &feeds->feed[i];
        uint64_t version = load_relaxed(&feed->version);
        const struct feed_figures *figures = figures_of(feed, version);
        if (version == 0 ||
            (figures->channel == datagram->channel && figures->protocol == datagram->protocol))
            return feed;
    }
    return &feeds->feed[FEEDS_MAX];
}

static bool is_reset(const struct feed_figures *figures, const struct feed_datagram *datagram)
{
    return datagram->session != figures->session ||
           (datagram->first <= figures->began && datagram->first != figures->newest &&
            datagram->first < figures->next);
}

static void take(struct feed_figures *figures, const struct feed_datagram *datagram)
{
    uint64_t end = datagram->first + datagram->messages;

    if (is_reset(figures, datagram)) {
        figures->resets++;
        figures->session = datagram->session;
        figures->began = figures->next = datagram->first;
    }
    if (datagram->first > figures->next) {
        figures->gaps++;
        figures->missing += datagram->first - figures->next;
    } else {
        uint64_t old = figures->next - datagram->first;
        figures->repeated += old < datagram->messages ? old : datagram->messages;
    }
    if (end > figures->next)
        figures->next = end;
    figures->newest = datagram->first;
}

void feed_note(struct feeds *feeds, const struct feed_datagram *datagram)
{
    struct feed *feed = find(feeds, datagram);
    uint64_t version = load_relaxed(&feed->version);
    struct feed_figures *figures = &feed->figures[(version + 1) % 2];

    if (version && figures_of(feed, version)->datagram >= datagram->number)
        return;
    if (version)
        *figures = *figures_of(feed, version);
    else
        *figures = (struct feed_figures){
            .protocol = datagram->protocol,
            .channel = datagram->channel,
            .session = datagram->session,
            .began = datagram->first,
            .newest = datagram->first,
            .next = datagram->first,
        };
    figures->datagram = datagram->number;
    figures->messages += datagram->messages;
    if (feed != &feeds->feed[FEEDS_MAX])
        take(figures, datagram);
    store_release(&feed->version, version + 1);
}

bool feed_read(const struct feeds *feeds, uint32_t index, struct feed_figures *figures)
{
    const struct feed *feed = &feeds->feed[index];
    uint64_t version = load_acquire(&feed->version), before;

    if (version == 0)
        return false;
    do {
        before = version;
        *figures = *figures_of(feed, before);
        atomic_thread_fence(memory_order_acquire);
        version = load_relaxed(&feed->version);
    } while (version != before);
    return true;
}
