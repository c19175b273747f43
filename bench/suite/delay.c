/* A loopback proxy that adds a delay to each direction: delay TARGET_PORT ROUND_TRIP_US. It prints its own port, serves
   on 127.0.0.1 only, and ends with its standard input. It waits by spinning for the last 100 us, since timers are late. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PAIRS 64
#define QUEUE (1 << 22)

struct part { int64_t due; size_t length; };
struct way { int from, to, ended; struct part parts[4096]; unsigned head, tail; char *data; size_t read, write; };

static struct way ways[2 * PAIRS];
static int count;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void add(int slot, int from, int to) {
    int on = 1;
    struct way *one = &ways[slot];
    char *data = one->data ? one->data : malloc(QUEUE);
    setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *one = (struct way){.from = from, .to = to, .data = data};
}

/* Ends a direction once everything is given, and frees the two of a connection once both have ended. */
static void end(int slot) {
    struct way *one = &ways[slot], *other = &ways[slot ^ 1];
    if (one->ended == 1 && one->head == one->tail) {
        shutdown(one->to, SHUT_WR);
        one->ended = 2;
    }
    if (one->ended == 2 && other->ended == 2) {
        close(one->to);
        close(other->to);
        one->to = other->to = -1;
        one->ended = other->ended = 3;
    }
}

static int unused(void) {
    for (int i = 0; i < count; i += 2)
        if (ways[i].ended == 3) return i;
    if (count == 2 * PAIRS) return -1;
    count += 2;
    return count - 2;
}

static void take(struct way *one, int64_t delay) {
    size_t room = QUEUE - one->write % QUEUE;
    ssize_t length = read(one->from, one->data + one->write % QUEUE, room < 65536 ? room : 65536);
    if (length <= 0) {
        one->from = -1;
        one->ended = 1;
        return;
    }
    one->write += length;
    one->parts[one->tail++ % 4096] = (struct part){now() + delay, length};
}

static void give(struct way *one) {
    struct part *first = &one->parts[one->head++ % 4096];
    size_t done = 0;
    while (done < first->length) {
        ssize_t length = write(one->to, one->data + one->read % QUEUE + done, first->length - done);
        if (length <= 0) break;
        done += length;
    }
    one->read += first->length;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int64_t delay = atoll(argv[2]) * 500;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in target = address;
    target.sin_port = htons(atoi(argv[1]));
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 64)) return 1;
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int64_t next = INT64_MAX;
        for (int i = 0; i < count; i++)
            while (ways[i].head != ways[i].tail) {
                int64_t due = ways[i].parts[ways[i].head % 4096].due;
                if (due <= now()) { give(&ways[i]); continue; }
                if (due < next) next = due;
                break;
            }
        for (int i = 0; i < count; i++) end(i);
        struct pollfd polled[2 * PAIRS + 2] = {{0, POLLIN, 0}, {listener, POLLIN, 0}};
        for (int i = 0; i < count; i++) polled[i + 2] = (struct pollfd){ways[i].from, POLLIN, 0};
        int64_t left = next == INT64_MAX ? 1000000000 : next - now() - 100000;
        struct timespec pause = {left < 0 ? 0 : left / 1000000000, left < 0 ? 0 : left % 1000000000};
        if (ppoll(polled, count + 2, &pause, NULL) <= 0) continue;
        if (polled[0].revents && getchar() == EOF) return 0;
        for (int i = count - 1; i >= 0; i--)
            if (polled[i + 2].revents && ways[i].from >= 0) take(&ways[i], delay);
        if (polled[1].revents) {
            int client = accept(listener, NULL, NULL), server = socket(AF_INET, SOCK_STREAM, 0), slot = unused();
            if (slot < 0 || connect(server, (void *)&target, sizeof target)) return 1;
            add(slot, client, server);
            add(slot + 1, server, client);
        }
    }
}
