/* SPDX-License-Identifier: Apache-2.0 */
#include "stage/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *speaker = "tickline";

void log_name(const char *name)
{
    speaker = name;
}

void log_line(const char *format, ...)
{
    char line[1024];
    struct timespec ts;
    struct tm tm;
    va_list arguments;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    int at = snprintf(line, sizeof(line),
                      "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s: ", tm.tm_year + 1900, tm.tm_mon + 1,
                      tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000, speaker);
    va_start(arguments, format);
    int written = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, format, arguments);
    va_end(arguments);
    at += written < (int)sizeof(line) - at - 1 ? written : (int)sizeof(line) - at - 2;
    line[at++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)at) < 0) {
        /* Nowhere left to say it. */
    }
}
