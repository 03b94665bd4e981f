/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `worker --describe`: what the handler of a configuration is, for the launcher, who must not run code of
 * others himself.
 *
 * Reads configuration text (config_write) from stdin; writes one JSON object:
 *
 *   { "name", "summary", "abi", "state": "stateless|shared|lost", "state_bytes", "allocates",
 *     "points": [{ "name", "span", "sentence" }, …] }
 *   { "key": "worker.handler" or "handler.NAME.KEY", "why" }   a person's mistake
 */
#ifndef TICKLINE_WORKER_DESCRIBE_H
#define TICKLINE_WORKER_DESCRIBE_H

/* The exit status: 0 where one of the two was written. */
int describe_main(void);

#endif
