/* The clients' side of the fan-out benches: one thread, one epoll, any number of WebSocket clients.
 *
 * Opens the clients, sends what they say first, then reads frames with as little work as shows the time of
 * each: it must never be what is measured. Takes commands as lines on its standard input and answers each
 * with one line of JSON. With --rtserver it speaks just enough rtserver.v1 to subscribe, to keep a cursor and
 * a seq per channel, to come back with them, and to count every gap. Judges nothing.
 *
 *   open            open every client that is closed       -> {"event":"open", ...}
 *   reset           forget all counts                      -> {"event":"reset"}
 *   wait N MS       until every client has N broadcasts, one was lost, or MS passed
 *                                                          -> {"event":"report", ...}
 *   drop            close everything at once, by RST       -> {"event":"dropped"}
 *   seqs N          how many channels are not at seq N     -> {"event":"seqs", ...}
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { CURSOR_BYTES = 72, CHUNK = 1 << 18, EVENTS = 1024, MAX_BROADCASTS = 1 << 16 };
enum state { CLOSED, CONNECTING, UPGRADING, OPEN };
enum { STDIN_MARK = -1 };

struct channel {
    const char *name;
    size_t size;
    char cursor[CURSOR_BYTES];
    long seq;
    bool joined;
};

struct client {
    int fd;
    enum state state;
    bool ready;
    int n_channels, joined, greetings;
    uint32_t broadcasts;
    struct channel *channels;
    char *in, *out;
    size_t in_size, in_room, out_size, out_sent;
};

struct broadcast {
    int64_t stamp, first, last;
    uint32_t count;
};

static const char *host = "127.0.0.1", *path = "/", *hello, *marker = "\"t\":";
static int port, n_clients = 1, n_sources = 1, wanted_greetings, in_flight_limit = 256;
static bool rtserver;
static struct client *clients;
static int epoll_fd;

/* What goes on: clients being opened, and what the caller waits for. */
static int in_flight, next_to_open, ready_clients;
static bool is_opening, is_waiting;
static int64_t open_started, wait_until;
static uint32_t wait_frames;
static int satisfied;

/* Counts since the last reset. */
static struct broadcast *broadcasts;
static int n_broadcasts;
static int64_t *latencies;
static size_t n_latencies, latency_room;
static uint64_t frames, bytes, reads, gaps, snapshots, resumed, joins, heartbeats, errors, strangers, lost;
static int64_t reset_at, reset_cpu;
static char first_error[256];

static char chunk[CHUNK];

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *grown(void *block, size_t size) {
    void *result = realloc(block, size);
    if (!result) die("no memory");
    return result;
}

static void watch(struct client *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)(c - clients)};
    if (epoll_ctl(epoll_fd, how, c->fd, &event) < 0) die("epoll_ctl");
}

/* --- writing ------------------------------------------------------------------------------------------ */

static void queue_bytes(struct client *c, const char *data, size_t size) {
    if (c->out_sent == c->out_size) c->out_sent = c->out_size = 0;
    c->out = grown(c->out, c->out_size + size);
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

/* A masked frame; the mask is zero, which a receiver can't tell from any other. */
static void queue_frame(struct client *c, int opcode, const char *text, size_t size) {
    char head[8] = {(char)(0x80 | opcode)};
    size_t used = 2;
    if (size < 126) {
        head[1] = (char)(0x80 | size);
    } else {
        head[1] = (char)(0x80 | 126);
        head[2] = (char)(size >> 8);
        head[3] = (char)size;
        used = 4;
    }
    memset(head + used, 0, 4);
    queue_bytes(c, head, used + 4);
    queue_bytes(c, text, size);
}

static bool flush(struct client *c) {
    while (c->out_sent < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) {
                watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
                return true;
            }
            return false;
        }
        c->out_sent += (size_t)sent;
    }
    free(c->out);
    c->out = NULL;
    c->out_size = c->out_sent = 0;
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
    return true;
}

/* --- opening and closing ------------------------------------------------------------------------------ */

static void end(struct client *c) {
    if (c->state == CLOSED) return;
    if (c->state != OPEN) in_flight--;
    if (c->ready) ready_clients--;
    close(c->fd);
    free(c->in);
    free(c->out);
    c->in = c->out = NULL;
    c->in_size = c->in_room = c->out_size = c->out_sent = 0;
    c->state = CLOSED;
    c->ready = false;
    c->joined = c->greetings = 0;
    for (int i = 0; i < c->n_channels; i++) c->channels[i].joined = false;
}

static void fail(struct client *c, const char *why) {
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "client %d: %s", (int)(c - clients), why);
    lost++;
    end(c);
}

static void start(struct client *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1;
    struct linger hard = {1, 0};
    inet_pton(AF_INET, host, &to.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Closing by RST leaves no TIME_WAIT behind: the next run finds its ports free. */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (n_sources > 1) {
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        from.sin_addr.s_addr = htonl(0x7F000001u + (uint32_t)((c - clients) % n_sources));
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0) die("bind");
    }
    c->state = CONNECTING;
    in_flight++;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) die("connect");
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void upgrade(struct client *c) {
    char request[512];
    int problem = 0;
    socklen_t size = sizeof problem;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem) {
        fail(c, strerror(problem));
        return;
    }
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          path, host, port);
    c->state = UPGRADING;
    queue_bytes(c, request, (size_t)length);
    if (!flush(c)) fail(c, "could not send the handshake");
}

static void greet(struct client *c) {
    char text[512];
    if (hello) queue_frame(c, 1, hello, strlen(hello));
    for (int i = 0; i < c->n_channels; i++) {
        struct channel *channel = &c->channels[i];
        int size = snprintf(text, sizeof text, "{\"type\":\"subscribe\",\"id\":%d,\"channel\":\"%.*s\"%s%s%s}", i,
                            (int)channel->size, channel->name, channel->cursor[0] ? ",\"cursor\":\"" : "",
                            channel->cursor, channel->cursor[0] ? "\"" : "");
        queue_frame(c, 1, text, (size_t)size);
    }
}

static void check_ready(struct client *c) {
    if (c->ready || c->joined < c->n_channels || c->greetings < wanted_greetings) return;
    c->ready = true;
    ready_clients++;
}

/* --- reading ------------------------------------------------------------------------------------------ */

static const char *find(const char *from, const char *to, const char *what) {
    return from < to ? memmem(from, (size_t)(to - from), what, strlen(what)) : NULL;
}

static const char *after(const char *from, const char *to, const char *what) {
    const char *found = find(from, to, what);
    return found ? found + strlen(what) : NULL;
}

static struct channel *channel_at(struct client *c, const char *name, const char *to) {
    const char *quote = memchr(name, '"', (size_t)(to - name));
    for (int i = 0; quote && i < c->n_channels; i++) {
        struct channel *channel = &c->channels[i];
        if (channel->size == (size_t)(quote - name) && !memcmp(channel->name, name, channel->size)) return channel;
    }
    return NULL;
}

static const char *keep_cursor(struct channel *channel, const char *from, const char *to) {
    const char *cursor = after(from, to, "\"cursor\":\"");
    const char *quote = cursor ? memchr(cursor, '"', (size_t)(to - cursor)) : NULL;
    if (!quote || quote - cursor >= CURSOR_BYTES) return from;
    memcpy(channel->cursor, cursor, (size_t)(quote - cursor));
    channel->cursor[quote - cursor] = 0;
    return quote;
}

static void take_changes(struct client *c, const char *at, const char *to) {
    at = after(at, to, "\"changes\":[");
    while (at && (at = after(at, to, "{\"channel\":\""))) {
        struct channel *channel = channel_at(c, at, to);
        const char *prev = after(at, to, "\"prev\":"), *seq = after(at, to, "\"seq\":");
        if (!channel || !prev || !seq) {
            strangers++;
            continue;
        }
        if (strtol(prev, NULL, 10) != channel->seq) gaps++;
        channel->seq = strtol(seq, NULL, 10);
        at = keep_cursor(channel, seq, to);
    }
}

static void note_broadcast(struct client *c, int64_t stamp, int64_t arrived) {
    struct broadcast *found = NULL;
    for (int i = n_broadcasts - 1; i >= 0 && !found; i--)
        if (broadcasts[i].stamp == stamp) found = &broadcasts[i];
    if (!found) {
        if (n_broadcasts == MAX_BROADCASTS) return;
        found = &broadcasts[n_broadcasts++];
        *found = (struct broadcast){.stamp = stamp, .first = arrived};
    }
    found->count++;
    found->last = arrived;
    if (n_latencies == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 16;
        latencies = grown(latencies, latency_room * sizeof *latencies);
    }
    latencies[n_latencies++] = arrived - stamp;
    if (++c->broadcasts == wait_frames) satisfied++;
}

/* One of rtserver's own messages; returns whether it is a broadcast. */
static bool take_message(struct client *c, const char *text, const char *to) {
    const char *kind = text + strlen("{\"type\":\"");
    if (to - kind < 6) return false;
    if (!memcmp(kind, "block\"", 6)) {
        take_changes(c, text, to);
        return true;
    }
    if (!memcmp(kind, "snapsh", 6) || !memcmp(kind, "subscr", 6)) {
        const char *name = after(kind, to, "\"channel\":\""), *seq = after(kind, to, "\"seq\":");
        struct channel *channel = name ? channel_at(c, name, to) : NULL;
        bool is_join = kind[1] == 'u';
        if (is_join) joins++;
        else snapshots++;
        if (is_join && find(kind, to, "\"how\":\"resumed\"")) resumed++;
        if (!channel || !seq) {
            strangers++;
            return false;
        }
        channel->seq = strtol(seq, NULL, 10);
        /* A snapshot's cursor stands behind its state, and nothing after the state is longer than this. */
        keep_cursor(channel, is_join || to - text < 256 ? text : to - 256, to);
        if (is_join && !channel->joined) {
            channel->joined = true;
            c->joined++;
            check_ready(c);
        }
    } else if (!memcmp(kind, "heartb", 6)) {
        heartbeats++;
        queue_frame(c, 1, "{\"type\":\"pong\"}", 15);
    } else if (!memcmp(kind, "error\"", 6) || !memcmp(kind, "bye\",\"", 6)) {
        errors++;
        if (!first_error[0]) snprintf(first_error, sizeof first_error, "%.*s", (int)(to - text), text);
    }
    return false;
}

static bool take_frame(struct client *c, int opcode, const char *text, size_t size, int64_t arrived) {
    const char *to = text + size, *stamp;
    if (opcode == 8) return false;
    if (opcode == 9) queue_frame(c, 10, text, size);
    if (opcode > 2) return true;
    frames++;
    if (c->greetings < wanted_greetings) {
        c->greetings++;
        check_ready(c);
        return true;
    }
    if (rtserver && !take_message(c, text, to)) return true;
    if ((stamp = after(text, to, marker))) note_broadcast(c, strtoll(stamp, NULL, 10), arrived);
    return true;
}

/* Takes all whole frames; returns how many bytes they were, or -1 when the server closes. */
static ssize_t take_frames(struct client *c, const char *data, size_t size, int64_t arrived) {
    size_t at = 0;
    while (size - at >= 2) {
        const unsigned char *head = (const unsigned char *)data + at;
        size_t length = head[1] & 0x7F, used = 2;
        if (length >= 126) {
            used = length == 126 ? 4 : 10;
            if (size - at < used) break;
            length = 0;
            for (size_t i = 2; i < used; i++) length = length << 8 | head[i];
        }
        if (size - at < used + length) break;
        if (!take_frame(c, head[0] & 0x0F, data + at + used, length, arrived)) return -1;
        at += used + length;
    }
    return (ssize_t)at;
}

static void keep_rest(struct client *c, const char *data, size_t size) {
    if (size > c->in_room) {
        c->in_room = size * 2;
        c->in = grown(c->in, c->in_room);
    }
    memmove(c->in, data, size);
    c->in_size = size;
}

static void take_bytes(struct client *c, const char *data, size_t size, int64_t arrived) {
    if (c->in_size) {
        if (c->in_size + size > c->in_room) {
            c->in_room = (c->in_size + size) * 2;
            c->in = grown(c->in, c->in_room);
        }
        memcpy(c->in + c->in_size, data, size);
        data = c->in;
        size = c->in_size += size;
    }
    if (c->state == UPGRADING) {
        const char *rest = after(data, data + size, "\r\n\r\n");
        if (!rest) {
            keep_rest(c, data, size);
            return;
        }
        if (!find(data, rest, " 101 ")) {
            fail(c, "the handshake was refused");
            return;
        }
        c->state = OPEN;
        in_flight--;
        greet(c);
        check_ready(c);
        size -= (size_t)(rest - data);
        data = rest;
    }
    ssize_t used = take_frames(c, data, size, arrived);
    if (used < 0) {
        fail(c, "the server closed the socket");
        return;
    }
    keep_rest(c, data + used, size - (size_t)used);
    if (!c->in_size && c->in_room > 4096) {
        free(c->in);
        c->in = NULL;
        c->in_room = 0;
    }
    if (c->out_size && !flush(c)) fail(c, "could not be written to");
}

static void serve(struct client *c, uint32_t events) {
    if (c->state == CLOSED) return;
    if (c->state == CONNECTING) {
        upgrade(c);
        return;
    }
    if (events & EPOLLOUT && !flush(c)) {
        fail(c, "could not be written to");
        return;
    }
    if (!(events & ~(uint32_t)EPOLLOUT)) return;
    ssize_t size = recv(c->fd, chunk, sizeof chunk, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        fail(c, size ? strerror(errno) : "the server went away");
        return;
    }
    reads++;
    bytes += (uint64_t)size;
    take_bytes(c, chunk, (size_t)size, now_ns());
}

/* --- commands ----------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double share_ms(double share) {
    if (!n_latencies) return 0;
    size_t index = (size_t)(share * (double)n_latencies);
    return (double)latencies[index < n_latencies ? index : n_latencies - 1] / 1e6;
}

static void reset(void) {
    n_broadcasts = 0;
    n_latencies = 0;
    satisfied = 0;
    frames = bytes = reads = gaps = snapshots = resumed = joins = heartbeats = errors = strangers = lost = 0;
    first_error[0] = 0;
    for (int i = 0; i < n_clients; i++) clients[i].broadcasts = 0;
    reset_at = now_ns();
    reset_cpu = cpu_ns();
}

static void report(const char *event, bool complete) {
    uint32_t least = UINT32_MAX, most = 0;
    for (int i = 0; i < n_clients; i++) {
        if (clients[i].broadcasts < least) least = clients[i].broadcasts;
        if (clients[i].broadcasts > most) most = clients[i].broadcasts;
    }
    qsort(latencies, n_latencies, sizeof *latencies, by_size);
    printf("{\"event\":\"%s\",\"complete\":%s,\"clients\":%d,\"frames\":%lu,\"bytes\":%lu,\"reads\":%lu,"
           "\"least\":%u,\"most\":%u,\"gaps\":%lu,\"snapshots\":%lu,\"joins\":%lu,\"resumed\":%lu,"
           "\"heartbeats\":%lu,\"errors\":%lu,\"strangers\":%lu,\"lost\":%lu,",
           event, complete ? "true" : "false", ready_clients, frames, bytes, reads, least, most, gaps, snapshots,
           joins, resumed, heartbeats, errors, strangers, lost);
    printf("\"samples\":%zu,\"p50_ms\":%.4f,\"p95_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f,"
           "\"cpu_ms\":%.3f,\"wall_ms\":%.3f,\"error\":\"",
           n_latencies, share_ms(0.50), share_ms(0.95), share_ms(0.99), share_ms(1.0),
           (double)(cpu_ns() - reset_cpu) / 1e6, (double)(now_ns() - reset_at) / 1e6);
    for (const char *at = first_error; *at; at++) putchar(*at == '"' || *at == '\\' || *at < ' ' ? '\'' : *at);
    printf("\",\"broadcasts\":[");
    for (int i = 0; i < n_broadcasts; i++)
        printf("%s[%ld,%u,%.4f,%.4f]", i ? "," : "", broadcasts[i].stamp, broadcasts[i].count,
               (double)(broadcasts[i].first - broadcasts[i].stamp) / 1e6,
               (double)(broadcasts[i].last - broadcasts[i].stamp) / 1e6);
    printf("]}\n");
    fflush(stdout);
}

static void obey(char *line) {
    unsigned count;
    long expected, milliseconds;
    if (!strcmp(line, "open")) {
        is_opening = true;
        open_started = now_ns();
        next_to_open = 0;
    } else if (!strcmp(line, "reset")) {
        reset();
        printf("{\"event\":\"reset\"}\n");
    } else if (sscanf(line, "wait %u %ld", &count, &milliseconds) == 2) {
        is_waiting = true;
        wait_frames = count;
        wait_until = now_ns() + milliseconds * 1000000;
        satisfied = 0;
        for (int i = 0; i < n_clients; i++) satisfied += clients[i].broadcasts >= count;
    } else if (!strcmp(line, "drop")) {
        for (int i = 0; i < n_clients; i++) end(&clients[i]);
        printf("{\"event\":\"dropped\"}\n");
    } else if (sscanf(line, "seqs %ld", &expected) == 1) {
        long wrong = 0, channels = 0;
        for (int i = 0; i < n_clients; i++)
            for (int j = 0; j < clients[i].n_channels; j++, channels++) wrong += clients[i].channels[j].seq != expected;
        printf("{\"event\":\"seqs\",\"channels\":%ld,\"wrong\":%ld}\n", channels, wrong);
    } else {
        fprintf(stderr, "loadgen: no command: %s\n", line);
        exit(2);
    }
    fflush(stdout);
}

static void take_commands(void) {
    static char line[256];
    static size_t used;
    ssize_t size = read(0, line + used, sizeof line - 1 - used);
    if (size <= 0) exit(0);
    used += (size_t)size;
    char *end_of_line;
    while ((end_of_line = memchr(line, '\n', used))) {
        *end_of_line = 0;
        obey(line);
        used -= (size_t)(end_of_line + 1 - line);
        memmove(line, end_of_line + 1, used);
    }
}

static void go_on(void) {
    while (is_opening && in_flight < in_flight_limit && next_to_open < n_clients) {
        struct client *c = &clients[next_to_open++];
        if (c->state == CLOSED) start(c);
    }
    if (is_opening && next_to_open == n_clients && !in_flight && (ready_clients == n_clients || lost)) {
        is_opening = false;
        printf("{\"event\":\"open\",\"clients\":%d,\"lost\":%lu,\"seconds\":%.4f,\"error\":\"%s\"}\n", ready_clients,
               lost, (double)(now_ns() - open_started) / 1e9, first_error);
        fflush(stdout);
    }
    if (is_waiting) {
        bool complete = satisfied >= n_clients;
        if (complete || lost || now_ns() > wait_until) {
            is_waiting = false;
            report("report", complete);
        }
    }
}

/* --- the program -------------------------------------------------------------------------------------- */

static void read_channels(const char *file) {
    FILE *lines = fopen(file, "r");
    char *line = NULL;
    size_t room = 0;
    if (!lines) die(file);
    for (int i = 0; i < n_clients && getline(&line, &room, lines) > 0; i++) {
        char *rest = NULL;
        for (char *word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
            struct client *c = &clients[i];
            c->channels = grown(c->channels, (size_t)(c->n_channels + 1) * sizeof *c->channels);
            c->channels[c->n_channels++] = (struct channel){.name = strdup(word), .size = strlen(word)};
        }
    }
    free(line);
    fclose(lines);
}

int main(int argc, char **argv) {
    const char *channels = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--host")) host = value;
        else if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--path")) path = value;
        else if (!strcmp(name, "--clients")) n_clients = atoi(value);
        else if (!strcmp(name, "--sources")) n_sources = atoi(value);
        else if (!strcmp(name, "--hello")) hello = value;
        else if (!strcmp(name, "--greetings")) wanted_greetings = atoi(value);
        else if (!strcmp(name, "--marker")) marker = value;
        else if (!strcmp(name, "--channels")) channels = value;
        else if (!strcmp(name, "--in-flight")) in_flight_limit = atoi(value);
        else {
            fprintf(stderr, "loadgen: no option %s\n", name);
            return 2;
        }
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    clients = calloc((size_t)n_clients, sizeof *clients);
    broadcasts = calloc(MAX_BROADCASTS, sizeof *broadcasts);
    epoll_fd = epoll_create1(0);
    if (!clients || !broadcasts || epoll_fd < 0) die("start");
    if (channels) {
        rtserver = true;
        read_channels(channels);
    }
    struct epoll_event in = {.events = EPOLLIN, .data.u64 = (uint64_t)STDIN_MARK}, events[EVENTS];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &in) < 0) die("standard input must be a pipe");
    reset();
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, 20);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == (uint64_t)STDIN_MARK) take_commands();
            else serve(&clients[events[i].data.u64], events[i].events);
        }
        go_on();
    }
}
