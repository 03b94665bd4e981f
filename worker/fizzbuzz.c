/* SPDX-License-Identifier: Apache-2.0 */
/* fizzbuzz: a decimal number of up to 18 digits becomes Fizz, Buzz, FizzBuzz or stays as it came.
 */
#include "worker/load.h"

#include <string.h>

enum { DIGITS_MAX = 18 };

static int32_t fizzbuzz_handle(struct tickline_context *context,
                               const struct tickline_request *request, uint8_t *reply,
                               uint32_t capacity)
{
    const void *text = request->payload;
    uint32_t length = request->length;
    uint64_t number = 0;

    (void)context;
    if (length == 0 || length > DIGITS_MAX)
        return TICKLINE_BAD_PAYLOAD;
    for (uint32_t i = 0; i < length; i++) {
        uint8_t digit = (uint8_t)(request->payload[i] - '0');
        if (digit > 9)
            return TICKLINE_BAD_PAYLOAD;
        number = number * 10 + digit;
    }
    if (number % 15 == 0) {
        text = "FizzBuzz";
        length = 8;
    } else if (number % 3 == 0 || number % 5 == 0) {
        text = number % 3 == 0 ? "Fizz" : "Buzz";
        length = 4;
    }
    if (length > capacity)
        return TICKLINE_REPLY_TOO_BIG;
    memcpy(reply, text, length);
    return (int32_t)length;
}

const struct tickline_handler handler_fizzbuzz = {
    .abi = TICKLINE_HANDLER_ABI,
    .name = "fizzbuzz",
    .summary = "a decimal number becomes Fizz, Buzz, FizzBuzz or stays as it came",
    .handle = fizzbuzz_handle,
};
