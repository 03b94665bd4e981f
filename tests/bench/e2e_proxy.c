/* SPDX-License-Identifier: Apache-2.0 */
/* Proxies that Debian has, each with the settings its manual gives for little delay. */
#include "tests/bench/e2e_socket.h"
#include "tests/bench/e2e_stream.h"
#include "tests/bench/e2e_system.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { END_MS = 3000, ARGUMENT_BYTES = 96 };

#define NGINX        "/usr/sbin/nginx"
#define NGINX_STREAM "/usr/lib/nginx/modules/ngx_stream_module.so"
#define HAPROXY      "/usr/sbin/haproxy"
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

/* A file in the system's folder; NULL with the reason in the note. */
static FILE *create(struct system *system, const char *name, struct bench_result *result)
{
    char path[PATH_MAX];

    if (e2e_folder_open(&system->folder, result) < 0)
        return NULL;
    snprintf(path, sizeof(path), "%s/%s", system->folder.scratch.path, name);
    FILE *out = fopen(path, "w");
    if (!out)
        bench_fail(result, -errno, "%s cannot be written: %s", name, strerror(errno));
    return out;
}

/* ---- nginx ---- */

/* One worker. */
static int start_nginx(struct system *system, const char *listen, const char *more,
                       struct bench_result *result)
{
    char *argv[] = {NGINX,       "-p", system->folder.scratch.path, "-c", "nginx.conf", "-e",
                    "error.log", NULL};

    if (access(NGINX, X_OK) < 0 || access(NGINX_STREAM, R_OK) < 0)
        return bench_fail(result, -ENOENT,
                          "needs nginx: apt-get install nginx "
                          "libnginx-mod-stream");
    FILE *out = create(system, "nginx.conf", result);
    if (!out)
        return -EIO;
    fprintf(out,
            "daemon off;\n"
            "worker_processes 1;\n"
            "pid nginx.pid;\n"
            "error_log error.log crit;\n"
            "load_module %s;\n"
            "events { use epoll; multi_accept on; }\n"
            "stream {\n"
            "    server {\n"
            "        listen 127.0.0.1:%u %s;\n"
            "        proxy_pass 127.0.0.1:%u;\n"
            "        %s;\n"
            "    }\n"
            "}\n",
            NGINX_STREAM, system->port, listen, system->to, more);
    if (fclose(out) != 0)
        return bench_fail(result, -EIO, "nginx.conf cannot be written");
    return start_program(system, argv, result);
}

/* Its upstream never answers it, and to say so (proxy_responses) saves 3 µs a request. */
static int start_nginx_udp(struct system *system, struct bench_result *result)
{
    system->port = e2e_socket_free_port();
    return start_nginx(system, "udp rcvbuf=32m", "proxy_responses 0", result);
}

static int start_nginx_tcp(struct system *system, struct bench_result *result)
{
    system->port = e2e_stream_free_port();
    return start_nginx(system, "", "tcp_nodelay on", result);
}

const struct system_kind system_nginx = {
    .reply = "abcdefgh",
    .awaited = true,
    .start = start_nginx_udp,
    .finish = finish,
};

const struct system_kind system_nginx_tcp = {
    .reply = "abcdefgh",
    .way = CLIENT_TCP,
    .start = start_nginx_tcp,
    .finish = finish,
};

/* ---- haproxy ---- */

/* One thread. It leaves Nagle's algorithm off by itself. */
static int start_haproxy_with(struct system *system, const char *more, struct bench_result *result)
{
    char path[PATH_MAX];
    char *argv[] = {HAPROXY, "-db", "-q", "-f", path, NULL};

    if (access(HAPROXY, X_OK) < 0)
        return bench_fail(result, -ENOENT, "needs haproxy: apt-get install haproxy");
    system->port = e2e_stream_free_port();
    FILE *out = create(system, "haproxy.cfg", result);
    if (!out)
        return -EIO;
    snprintf(path, sizeof(path), "%s/haproxy.cfg", system->folder.scratch.path);
    fprintf(out,
            "global\n"
            "    nbthread 1\n"
            "    maxconn 64\n"
            "%s"
            "defaults\n"
            "    mode tcp\n"
            "    timeout connect 5s\n"
            "    timeout client 60s\n"
            "    timeout server 60s\n"
            "listen relay\n"
            "    bind 127.0.0.1:%u\n"
            "    server sink 127.0.0.1:%u\n",
            more, system->port, system->to);
    if (fclose(out) != 0)
        return bench_fail(result, -EIO, "haproxy.cfg cannot be written");
    return start_program(system, argv, result);
}

static int start_haproxy(struct system *system, struct bench_result *result)
{
    return start_haproxy_with(system, "", result);
}

static int start_haproxy_busy(struct system *system, struct bench_result *result)
{
    return start_haproxy_with(system, "    busy-polling\n", result);
}

const struct system_kind system_haproxy = {
    .reply = "abcdefgh",
    .way = CLIENT_TCP,
    .start = start_haproxy,
    .finish = finish,
};

const struct system_kind system_haproxy_busy = {
    .reply = "abcdefgh",
    .way = CLIENT_TCP,
    .start = start_haproxy_busy,
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
