/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines to stderr: `2026-01-31T12:00:00.123Z rx: message`, one write(2) a line, so that
 * processes never mix theirs. Never called from poll().
 */
#ifndef TICKLINE_STAGE_LOG_H
#define TICKLINE_STAGE_LOG_H

/* Who speaks; kept by pointer. */
void log_name(const char *name);

__attribute__((format(printf, 1, 2))) void log_line(const char *format, ...);

#endif
