/* SPDX-License-Identifier: Apache-2.0 */
/* fizzbuzz: a decimal number of up to 18 digits becomes Fizz, Buzz, FizzBuzz or stays as it came.
 */
#include "worker/handler.h"

#include <string.h>

enum { DIGITS_MAX = 18 };

static int fizzbuzz_handle(const uint8_t *in, uint32_t length, uint8_t *out, uint32_t capacity)
{
    uint64_t number = 0;

    if (length == 0 || length > DIGITS_MAX)
        return HANDLER_REJECT(REASON_bad_payload);
    for (uint32_t i = 0; i < length; i++) {
        uint8_t digit = (uint8_t)(in[i] - '0');
        if (digit > 9)
            return HANDLER_REJECT(REASON_bad_payload);
        number = number * 10 + digit;
    }
    const void *text = in;
    if (number % 15 == 0) {
        text = "FizzBuzz";
        length = 8;
    } else if (number % 3 == 0 || number % 5 == 0) {
        text = number % 3 == 0 ? "Fizz" : "Buzz";
        length = 4;
    }
    if (length > capacity)
        return HANDLER_REJECT(REASON_reply_too_big);
    memcpy(out, text, length);
    return (int)length;
}

const struct handler handler_fizzbuzz = {"fizzbuzz", NULL, fizzbuzz_handle};
