/*
 * test_load_run.c - whole runs of the load client, with several threads, against a small server in the same
 * process: what the threads share is what this is about, and what the sanitizers look at.
 *
 * Sources: fastcast/load/
 */
#include "digest.h"
#include "load.h"
#include "test_load_check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_CLIENTS 256
#define REQUEST_END "\r\n\r\n"

/* One client of the server: what it has sent and the server not yet taken. */
struct client {
    int fd;
    bool open;
    size_t used;
    uint8_t bytes[16384];
};

/* One thread that accepts, answers handshakes and sends each message to everybody, or back to who sent it. */
struct server {
    pthread_t thread;
    int listener;
    int port;
    bool echoes;
    _Atomic int refusals; /* handshakes still to be answered with 503 */
    _Atomic bool stopping;
    unsigned used;
    struct client clients[MOST_CLIENTS];
};

static void send_all(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the client has gone, which its own read will show */
        at += sent;
        size -= (size_t)sent;
    }
}

/* Returns false when the client is refused. */
static bool shake_hands(struct server *server, struct client *client, size_t size)
{
    static const char field[] = "Sec-WebSocket-Key: ";
    char answer[256];
    char accept[FC_DIGEST_ACCEPT + 1];
    if (atomic_fetch_sub(&server->refusals, 1) > 0) {
        static const char refusal[] = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        send_all(client->fd, refusal, sizeof refusal - 1);
        return false;
    }
    const char *key = memmem(client->bytes, size, field, sizeof field - 1);
    fc_digest_accept(accept, key + sizeof field - 1, 24);
    int length = snprintf(answer, sizeof answer,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n",
                          accept);
    client->open = true;
    send_all(client->fd, answer, (size_t)length);
    return true;
}

/* Sends an unmasked frame of up to 65535 bytes. */
static void send_frame(int fd, uint8_t first, const uint8_t *payload, size_t size)
{
    uint8_t frame[4 + 65536];
    size_t head = size < 126 ? 2 : 4;
    frame[0] = first;
    frame[1] = (uint8_t)(size < 126 ? size : 126);
    if (head == 4) {
        frame[2] = (uint8_t)(size >> 8);
        frame[3] = (uint8_t)size;
    }
    memcpy(frame + head, payload, size);
    send_all(fd, frame, head + size);
}

/* Takes one masked frame from the front of what a client sent.  Returns its size, 0 when it is not whole, and
 * -1 when it was a Close. */
static ssize_t take_frame(struct server *server, struct client *client)
{
    uint8_t *bytes = client->bytes;
    if (client->used < 8)
        return 0;
    size_t size = bytes[1] & 127;
    size_t head = size == 126 ? 8 : 6;
    if (size == 126)
        size = (size_t)bytes[2] << 8 | bytes[3];
    if (client->used < head + size)
        return 0;
    uint8_t *payload = bytes + head;
    for (size_t i = 0; i < size; i++)
        payload[i] ^= bytes[head - 4 + i % 4];
    if ((bytes[0] & 15) == 8) {
        send_frame(client->fd, bytes[0], payload, size);
        return -1;
    }
    for (unsigned i = 0; i < server->used; i++)
        if (server->clients[i].open && (!server->echoes || &server->clients[i] == client))
            send_frame(server->clients[i].fd, bytes[0], payload, size);
    return (ssize_t)(head + size);
}

/* Returns false when the client is to go. */
static bool serve_client(struct server *server, struct client *client)
{
    ssize_t got = recv(client->fd, client->bytes + client->used, sizeof client->bytes - client->used, 0);
    if (got <= 0)
        return false;
    client->used += (size_t)got;
    for (;;) {
        ssize_t taken = 0;
        if (!client->open) {
            const uint8_t *end = memmem(client->bytes, client->used, REQUEST_END, strlen(REQUEST_END));
            if (end == NULL)
                return true;
            taken = end + strlen(REQUEST_END) - client->bytes;
            if (!shake_hands(server, client, (size_t)taken))
                return false;
        } else if ((taken = take_frame(server, client)) <= 0) {
            return taken == 0;
        }
        client->used -= (size_t)taken;
        memmove(client->bytes, client->bytes + taken, client->used);
    }
}

static void drop_client(struct server *server, unsigned index)
{
    close(server->clients[index].fd);
    server->used--;
    if (index < server->used)
        server->clients[index] = server->clients[server->used];
}

static void *serve(void *argument)
{
    struct server *server = argument;
    while (!atomic_load(&server->stopping)) {
        struct pollfd polled[MOST_CLIENTS + 1] = {{.fd = server->listener, .events = POLLIN}};
        unsigned count = server->used;
        for (unsigned i = 0; i < count; i++)
            polled[i + 1] = (struct pollfd){.fd = server->clients[i].fd, .events = POLLIN};
        poll(polled, count + 1, 10);
        for (unsigned i = count; i > 0; i--)
            if (polled[i].revents != 0 && !serve_client(server, &server->clients[i - 1]))
                drop_client(server, i - 1);
        if ((polled[0].revents & POLLIN) != 0 && server->used < MOST_CLIENTS) {
            int fd = accept(server->listener, NULL, NULL);
            if (fd >= 0)
                server->clients[server->used++] = (struct client){.fd = fd};
        }
    }
    while (server->used > 0)
        drop_client(server, 0);
    return NULL;
}

static struct server *start(bool echoes, int refusals)
{
    struct server *server = calloc(1, sizeof *server);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (server == NULL)
        abort();
    server->echoes = echoes;
    atomic_init(&server->refusals, refusals);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(server->listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(server->listener, MOST_CLIENTS) == 0);
    CHECK(getsockname(server->listener, (struct sockaddr *)&address, &size) == 0);
    server->port = ntohs(address.sin_port);
    CHECK(pthread_create(&server->thread, NULL, serve, server) == 0);
    return server;
}

static void stop(struct server *server)
{
    atomic_store(&server->stopping, true);
    pthread_join(server->thread, NULL);
    close(server->listener);
    free(server);
}

/* Runs the options against a server; the caller frees the report. */
static struct fc_load_report *run(struct server *server, struct fc_load_options *options)
{
    struct fc_load_report *report = calloc(1, sizeof *report);
    char url[64];
    char problem[FC_LOAD_PROBLEM];
    if (report == NULL)
        abort();
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", server->port);
    options->url = url;
    options->settle = 0;
    int code = fc_load_run(options, report, problem, sizeof problem);
    if (code != 0)
        fprintf(stderr, "%s\n", problem);
    CHECK(code == 0);
    return report;
}

static struct fc_load_options few(void)
{
    struct fc_load_options options;
    fc_load_options_init(&options);
    options.connections = 30;
    options.threads = 3;
    options.senders = 4;
    options.messages = 20;
    return options;
}

struct witness {
    unsigned snapshots;
    unsigned asked[FC_LOAD_PHASES];
    uint64_t deliveries;
    uint64_t handshakes;
    uint64_t received;
};

static int see(void *context, const struct fc_load_snapshot *snapshot)
{
    struct witness *witness = context;
    witness->snapshots++;
    witness->deliveries += snapshot->latency->count;
    witness->handshakes += snapshot->handshake->count;
    CHECK(snapshot->received >= witness->received);
    witness->received = snapshot->received;
    return 0;
}

static int let_pass_at_the_second_time(void *context, enum fc_load_phase phase)
{
    struct witness *witness = context;
    return ++witness->asked[phase] == 2;
}

static void watching_does_not_disturb(void)
{
    struct server *server = start(false, 0);
    struct fc_load_options options = few();
    struct witness witness = {0};
    options.in_flight = 2;
    options.interval = 0.001;
    options.progress = see;
    options.gate = let_pass_at_the_second_time;
    options.context = &witness;
    struct fc_load_report *report = run(server, &options);
    CHECK(report->clean);
    CHECK(report->deliveries.received == 4 * 20 * 30);
    CHECK(witness.deliveries == 4 * 20 * 30 && witness.handshakes == 30);
    CHECK(witness.snapshots > 1 && witness.received == 4 * 20 * 30);
    for (unsigned i = 0; i < FC_LOAD_PHASES; i++)
        CHECK(witness.asked[i] == (i == FC_LOAD_STORM ? 0 : 2));
    free(report);
    stop(server);
}

static void a_storm_ends_with_all_back(void)
{
    struct server *server = start(false, 5);
    struct fc_load_options options = few();
    options.storm = true;
    options.retry = 0.01;
    struct fc_load_report *report = run(server, &options);
    CHECK(report->clean);
    CHECK(report->storm.dropped == 30 && report->storm.back == 30);
    CHECK(report->connections.attempts == 65);
    CHECK(report->connections.retried.used == 1 && report->connections.retried.rows[0].count == 5);
    CHECK(report->deliveries.received == 4 * 20 * 30);
    free(report);
    stop(server);
}

static void thinking_senders_get_their_echoes(void)
{
    struct server *server = start(true, 0);
    struct fc_load_options options = few();
    options.senders = 30;
    options.think = 0.001;
    options.expect = FC_LOAD_EXPECT_SENDER;
    struct fc_load_report *report = run(server, &options);
    CHECK(report->clean);
    CHECK(report->deliveries.received == 30 * 20 && report->latency_us.count == 30 * 20);
    free(report);
    stop(server);
}

static void churn_goes_on_beside_messages(void)
{
    struct server *server = start(false, 0);
    struct fc_load_options options = few();
    options.churn = 100;
    options.rate = 400;
    options.messages = 50;
    struct fc_load_report *report = run(server, &options);
    CHECK(report->clean);
    CHECK(report->churn.closed > 0 && report->churn.closed == report->churn.reopened);
    CHECK(report->deliveries.received == report->deliveries.expected);
    free(report);
    stop(server);
}

static int end_in_hold(void *context, const struct fc_load_snapshot *snapshot)
{
    (void)context;
    return snapshot->phase == FC_LOAD_HOLD;
}

static void a_run_can_be_ended(void)
{
    struct server *server = start(false, 0);
    struct fc_load_options options = few();
    options.hold = 1000;
    options.interval = 0.01;
    options.progress = end_in_hold;
    struct fc_load_report *report = run(server, &options);
    CHECK(report->cancelled && !report->clean);
    CHECK(report->closes.used == 1 && report->closes.rows[0].count == 30);
    free(report);
    stop(server);
}

static void the_report_is_written_whole_or_not_at_all(void)
{
    struct server *server = start(false, 0);
    struct fc_load_options options = few();
    struct fc_load_report *report = run(server, &options);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    CHECK(fc_load_report_write(report, out) == 0);
    fclose(out);
    CHECK(size > 2 && text[0] == '{' && strcmp(text + size - 2, "}\n") == 0);
    CHECK(strstr(text, "\"clean\": true") != NULL && strstr(text, "\"storm\": null") != NULL);
    free(text);
    FILE *full = fopen("/dev/full", "w");
    CHECK(full != NULL && fc_load_report_write(report, full) == -EIO);
    fclose(full);
    free(report);
    stop(server);
}

int main(void)
{
    watching_does_not_disturb();
    a_storm_ends_with_all_back();
    thinking_senders_get_their_echoes();
    churn_goes_on_beside_messages();
    a_run_can_be_ended();
    the_report_is_written_whole_or_not_at_all();
    return check_result();
}
