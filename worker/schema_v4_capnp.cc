/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads where the bytes lie, and writes into a segment made once: neither takes memory unless a message
 * is broken or has several segments. What the library finds wrong it says to `Judge`, which notes it;
 * where it cannot go on it throws a Judge::Broken, caught here.
 */
#include "worker/schema_v4_capnp.h"

#include "request.capnp.h"

#include <capnp/message.h>
#include <cstring>
#include <kj/exception.h>

namespace
{

struct Judge final : kj::ExceptionCallback {
    struct Broken {
    };
    bool broken = false;

    void onRecoverableException(kj::Exception &&) override
    {
        broken = true;
    }
    void onFatalException(kj::Exception &&) override
    {
        throw Broken();
    }
    void logMessage(kj::LogSeverity, const char *, int, int, kj::String &&) override
    {
    }
    StackTraceMode stackTraceMode() override
    {
        return StackTraceMode::NONE;
    }
};

/* A message holds no deeper pointers than two, and no word is read more than a few times. */
constexpr capnp::ReaderOptions limits = {4 * V4_WORDS_MAX, 4};

class Segments final : public capnp::MessageReader
{
  public:
    Segments(const v4_segment *all, uint32_t how_many)
        : MessageReader(limits), segments(all), count(how_many)
    {
    }
    kj::ArrayPtr<const capnp::word> getSegment(unsigned int id) override
    {
        if (id >= count)
            return nullptr;
        return {reinterpret_cast<const capnp::word *>(segments[id].data), segments[id].words};
    }

  private:
    const v4_segment *segments;
    uint32_t count;
};

capnp::word scratch[V4_WORDS_MAX];

} // namespace

bool v4_read(const struct v4_segment *segments, uint32_t count, struct v4_request *out)
{
    Judge judge;

    try {
        Segments reader(segments, count);
        tickline::Request::Reader request = reader.getRoot<tickline::Request>();
        capnp::Data::Reader payload = request.getPayload();
        *out = {request.getId(), payload.begin(), static_cast<uint32_t>(payload.size())};
    } catch (...) {
        return false;
    }
    if (out->payload == nullptr)
        out->payload = segments[0].data;
    return !judge.broken;
}

uint32_t v4_write(uint8_t *out, uint64_t id, const uint8_t *payload, uint32_t length)
{
    /* Leaves the scratch segment zeroed at its end, as it must be at the next begin. */
    capnp::MallocMessageBuilder builder(kj::arrayPtr(scratch, V4_WORDS_MAX));
    tickline::Request::Builder reply = builder.initRoot<tickline::Request>();

    reply.setId(id);
    std::memcpy(reply.initPayload(length).begin(), payload, length);
    kj::ArrayPtr<const capnp::word> segment = builder.getSegmentsForOutput()[0];
    std::memcpy(out, segment.begin(), segment.size() * sizeof(capnp::word));
    return static_cast<uint32_t>(segment.size());
}
