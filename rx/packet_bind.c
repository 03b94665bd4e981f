/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/packet_bind.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool parse(const struct config_endpoint *endpoint, struct packet_end *end)
{
    static const uint8_t zero[16];

    *end = (struct packet_end){.port = endpoint->port};
    if (inet_pton(AF_INET, endpoint->address, end->address + 12) == 1) {
        end->any = memcmp(end->address, zero, sizeof(zero)) == 0;
        memcpy(end->address, mapped, sizeof(mapped));
        return true;
    }
    end->six = inet_pton(AF_INET6, endpoint->address, end->address) == 1;
    end->any = memcmp(end->address, zero, sizeof(zero)) == 0;
    return end->six;
}

int packet_bind_open(struct packet_bind *bind, const struct config *config, uint32_t *wrong)
{
    memset(bind, 0, sizeof(*bind));
    for (*wrong = 0; *wrong < config->rx.bind_count; ++*wrong) {
        struct packet_end *end = &bind->end[bind->count];
        if (!parse(&config->rx.bind[*wrong], end))
            return -EINVAL;
        bind->ports[end->port / 64] |= 1ULL << end->port % 64;
        bind->count++;
    }
    if (config->tx.to.port)
        (void)parse(&config->tx.to, &bind->replies);
    return 0;
}

static bool is_end(const struct packet_end *end, const uint8_t address[16], uint16_t port)
{
    if (end->port != port)
        return false;
    return end->any ? end->six == (memcmp(address, mapped, sizeof(mapped)) != 0)
                    : memcmp(end->address, address, sizeof(end->address)) == 0;
}

bool packet_bind_takes(const struct packet_bind *bind, const struct decode_ends *ends)
{
    uint16_t port = ends->destination_port;

    if (bind->replies.port && (is_end(&bind->replies, ends->destination, port) ||
                               is_end(&bind->replies, ends->source, ends->source_port)))
        return false;
    if (bind->count == 0)
        return true;
    if (!(bind->ports[port / 64] >> port % 64 & 1))
        return false;
    for (uint32_t i = 0; i < bind->count; i++) {
        if (is_end(&bind->end[i], ends->destination, port))
            return true;
    }
    return false;
}
