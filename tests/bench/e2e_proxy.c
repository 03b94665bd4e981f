/* SPDX-License-Identifier: Apache-2.0 */
/* Proxies that Debian has, each with the settings its manual gives for little delay. */
#include "tests/bench/e2e_socket.h"
#include "tests/bench/e2e_system.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { END_MS = 3000, ARGUMENT_BYTES = 96 };

#define NGINX        "/usr/sbin/nginx"
#define NGINX_STREAM "/usr/lib/nginx/modules/ngx_stream_module.so"
#define SOCAT        "/usr/bin/socat"

static int start_program(struct system *system, char *const argv[], struct bench_result *result)
{
    system->pid = e2e_child_start(&(struct e2e_program){
        .argv = argv, .cpu = &system->bench->cpu[1], .cpus = 1, .in = -1, .out = -1});
    return system->pid < 0 ? bench_fail(result, (int)system->pid, "%s cannot be started", argv[0])
                           : 0;
}

static int finish(struct system *system, struct bench_result *result)
{
    (void)result;
    (void)e2e_child_end(system->pid, SIGTERM, END_MS);
    system->pid = 0;
    return 0;
}

/* ---- nginx ---- */

/* One worker. Its upstream never answers it, and to say so (proxy_responses) saves 3 µs a request. */
static int write_nginx_config(const struct system *system)
{
    char path[sizeof(system->folder.scratch.path) + sizeof("/nginx.conf")];

    snprintf(path, sizeof(path), "%s/nginx.conf", system->folder.scratch.path);
    FILE *out = fopen(path, "w");
    if (!out)
        return -errno;
    fprintf(out,
            "daemon off;\n"
            "worker_processes 1;\n"
            "pid nginx.pid;\n"
            "error_log error.log crit;\n"
            "load_module %s;\n"
            "events { use epoll; multi_accept on; }\n"
            "stream {\n"
            "    server {\n"
            "        listen 127.0.0.1:%u udp rcvbuf=32m;\n"
            "        proxy_pass 127.0.0.1:%u;\n"
            "        proxy_responses 0;\n"
            "    }\n"
            "}\n",
            NGINX_STREAM, system->port, system->to);
    return fclose(out) == 0 ? 0 : -errno;
}

static int start_nginx(struct system *system, struct bench_result *result)
{
    char *argv[] = {NGINX,       "-p", system->folder.scratch.path, "-c", "nginx.conf", "-e",
                    "error.log", NULL};

    if (access(NGINX, X_OK) < 0 || access(NGINX_STREAM, R_OK) < 0)
        return bench_fail(result, -ENOENT,
                          "needs nginx: apt-get install nginx "
                          "libnginx-mod-stream");
    system->port = e2e_socket_free_port();
    int err = e2e_folder_open(&system->folder, result);
    if (err < 0)
        return err;
    err = write_nginx_config(system);
    if (err < 0)
        return bench_fail(result, err, "nginx.conf cannot be written: %s", strerror(-err));
    return start_program(system, argv, result);
}

const struct system_kind system_nginx = {
    .reply = "abcdefgh",
    .awaited = true,
    .start = start_nginx,
    .finish = finish,
};

/* ---- socat ---- */

static int start_socat(struct system *system, struct bench_result *result)
{
    char from[ARGUMENT_BYTES];
    char to[ARGUMENT_BYTES];
    char *argv[] = {SOCAT, "-u", from, to, NULL};

    if (access(SOCAT, X_OK) < 0)
        return bench_fail(result, -ENOENT, "needs socat: apt-get install socat");
    system->port = e2e_socket_free_port();
    snprintf(from, sizeof(from), "UDP4-RECV:%u,bind=127.0.0.1,rcvbuf=33554432", system->port);
    snprintf(to, sizeof(to), "UDP4-SENDTO:127.0.0.1:%u", system->to);
    return start_program(system, argv, result);
}

const struct system_kind system_socat = {
    .reply = "abcdefgh",
    .awaited = true,
    .start = start_socat,
    .finish = finish,
};
