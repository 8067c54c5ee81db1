/* Delay links in user space, for kernels without netem.
 *
 *     delay-node STATS_FILE NAME:DEVICE_A:DEVICE_B:DELAY_NS:CAPACITY...
 *
 * A frame received on one device of a link leaves on the other DELAY_NS after the kernel received it: the kernel's
 * own receive time stamp counts, so how late this process was woken to read the frame adds nothing. It prints
 * "ready" when it forwards, runs until SIGTERM or SIGINT, and then writes counters as JSON to STATS_FILE.
 */
#define _GNU_SOURCE
#include "delay_queue.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

enum {
    BATCH = 32,             /* frames read with one system call */
    LARGEST_FRAME = 16384,  /* every offload is off: nothing on the wire is larger than its MTU */
    VLAN_TAG = 4,
    MAC_ADDRESSES = 12,
    RECEIVE_BUFFER = 4 << 20,
    PRIORITY = 20,
};

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t OLDEST_NS = 100000000; /* a time stamp further off than this means that the clock was set */
static const uint64_t LATE_NS = 500000;

struct direction {
    const char *link, *from, *to;
    int in, out;
    struct delay_queue queue;
    uint64_t forwarded, refused, late, worst_late_ns;
};

static volatile sig_atomic_t stopping;

static void stop(int signal)
{
    (void)signal;
    stopping = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "delay-node: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static int open_device(const char *device)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        die("packet socket");
    int on = 1, size = RECEIVE_BUFFER;
    if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) ||
        setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on))
        die("socket options");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(device),
    };
    if (address.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&address, sizeof address))
        die(device);
    return fd;
}

/* A late wake-up is a delay nobody asked for: run before ordinary processes, keep every page in memory. */
static void ask_for_precision(void)
{
    struct sched_param parameter = { .sched_priority = PRIORITY };
    if (sched_setscheduler(0, SCHED_FIFO, &parameter))
        fprintf(stderr, "delay-node: no real-time priority (%s): delays jitter when the machine is busy\n",
                strerror(errno));
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (mlockall(MCL_CURRENT | MCL_FUTURE))
        fprintf(stderr, "delay-node: memory is not locked: %s\n", strerror(errno));
}

struct received {
    uint64_t arrived_ns; /* monotonic */
    unsigned char *bytes;
    size_t length;
};

/* The frame as it was on the wire and when it came. The kernel hands a VLAN tag beside the frame: put it back. */
static struct received unpack(struct msghdr *message, unsigned char *frame, size_t length, uint64_t wall_ns,
                              uint64_t monotonic_ns)
{
    uint64_t age_ns = 0;
    struct received received = { .bytes = frame, .length = length };
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            uint64_t stamp_ns = (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
            if (stamp_ns < wall_ns && wall_ns - stamp_ns < OLDEST_NS)
                age_ns = wall_ns - stamp_ns;
        } else if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) {
            struct tpacket_auxdata aux;
            memcpy(&aux, CMSG_DATA(c), sizeof aux);
            if (aux.tp_status & TP_STATUS_VLAN_VALID) {
                uint16_t tag[2] = { htons(aux.tp_status & TP_STATUS_VLAN_TPID_VALID ? aux.tp_vlan_tpid : ETHERTYPE_VLAN),
                                    htons(aux.tp_vlan_tci) };
                received.bytes = frame - VLAN_TAG;
                received.length = length + VLAN_TAG;
                memmove(received.bytes, frame, MAC_ADDRESSES);
                memcpy(received.bytes + MAC_ADDRESSES, tag, sizeof tag);
            }
        }
    }
    received.arrived_ns = monotonic_ns - age_ns;
    return received;
}

static void receive(struct direction *direction)
{
    static unsigned char frames[BATCH][VLAN_TAG + LARGEST_FRAME];
    static union {
        char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct tpacket_auxdata))];
        struct cmsghdr align;
    } control[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH] = { 0 };
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){ .iov_base = frames[i] + VLAN_TAG, .iov_len = LARGEST_FRAME };
        messages[i].msg_hdr = (struct msghdr){
            .msg_iov = &parts[i],
            .msg_iovlen = 1,
            .msg_control = control[i].bytes,
            .msg_controllen = sizeof control[i].bytes,
        };
    }
    int count = recvmmsg(direction->in, messages, BATCH, 0, NULL);
    if (count < 0)
        return; /* nothing there after all, or the device is going down: poll tells again */
    uint64_t wall_ns = now_ns(CLOCK_REALTIME), monotonic_ns = now_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < count; i++) {
        if (messages[i].msg_hdr.msg_flags & MSG_TRUNC) {
            direction->refused++;
            continue;
        }
        struct received frame =
            unpack(&messages[i].msg_hdr, frames[i] + VLAN_TAG, messages[i].msg_len, wall_ns, monotonic_ns);
        delay_queue_push(&direction->queue, frame.arrived_ns, frame.bytes, frame.length);
    }
}

static void release(struct direction *direction)
{
    const struct delayed_frame *frame;
    uint64_t now;
    while ((frame = delay_queue_due(&direction->queue, now = now_ns(CLOCK_MONOTONIC))) != NULL) {
        uint64_t late_ns = now - frame->due_ns;
        if (send(direction->out, frame->bytes, frame->length, 0) == (ssize_t)frame->length)
            direction->forwarded++;
        else
            direction->refused++;
        if (late_ns > LATE_NS)
            direction->late++;
        if (late_ns > direction->worst_late_ns)
            direction->worst_late_ns = late_ns;
        delay_queue_pop(&direction->queue);
    }
}

static void write_stats(const char *path, struct direction *directions, size_t count)
{
    FILE *file = fopen(path, "w");
    if (file == NULL)
        die(path);
    fprintf(file, "[");
    for (size_t i = 0; i < count; i++) {
        struct direction *d = &directions[i];
        struct tpacket_stats kernel = { 0 };
        socklen_t size = sizeof kernel;
        getsockopt(d->in, SOL_PACKET, PACKET_STATISTICS, &kernel, &size);
        fprintf(file,
                "%s\n {\"link\": \"%s\", \"from\": \"%s\", \"to\": \"%s\", \"forwarded\": %llu, \"dropped\": %llu,"
                " \"late\": %llu, \"worst_late_us\": %.1f}",
                i ? "," : "", d->link, d->from, d->to, (unsigned long long)d->forwarded,
                (unsigned long long)(d->queue.dropped + d->refused + kernel.tp_drops), (unsigned long long)d->late,
                (double)d->worst_late_ns / 1000.0);
    }
    fprintf(file, "\n]\n");
    fclose(file);
}

/* Cut "NAME:A:B:DELAY_NS:CAPACITY" in place into both directions of a link. */
static void open_link(char *text, struct direction *pair)
{
    char *rest = text;
    char *name = strsep(&rest, ":"), *a = strsep(&rest, ":"), *b = strsep(&rest, ":");
    char *delay = strsep(&rest, ":"), *capacity = strsep(&rest, ":");
    if (capacity == NULL || strtoul(capacity, NULL, 10) == 0) {
        fprintf(stderr, "delay-node: not NAME:DEVICE_A:DEVICE_B:DELAY_NS:CAPACITY: %s\n", name);
        exit(2);
    }
    int fd_a = open_device(a), fd_b = open_device(b);
    pair[0] = (struct direction){ .link = name, .from = a, .to = b, .in = fd_a, .out = fd_b };
    pair[1] = (struct direction){ .link = name, .from = b, .to = a, .in = fd_b, .out = fd_a };
    for (int i = 0; i < 2; i++)
        if (!delay_queue_init(&pair[i].queue, strtoull(delay, NULL, 10), strtoul(capacity, NULL, 10)))
            die("memory");
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: delay-node STATS_FILE NAME:DEVICE_A:DEVICE_B:DELAY_NS:CAPACITY...\n");
        return 2;
    }
    size_t count = 2 * (size_t)(argc - 2);
    struct direction *directions = calloc(count, sizeof *directions);
    struct pollfd *polls = calloc(count, sizeof *polls);
    if (directions == NULL || polls == NULL)
        die("memory");

    /* The signals are let in only while ppoll waits, so that none is missed between a look at `stopping` and it. */
    sigset_t blocked, waiting;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &waiting);
    sigdelset(&waiting, SIGTERM);
    sigdelset(&waiting, SIGINT);
    struct sigaction action = { .sa_handler = stop };
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    for (int i = 2; i < argc; i++)
        open_link(argv[i], &directions[2 * (i - 2)]);
    for (size_t i = 0; i < count; i++)
        polls[i] = (struct pollfd){ .fd = directions[i].in, .events = POLLIN };
    ask_for_precision();
    puts("ready");
    fflush(stdout);

    while (!stopping) {
        uint64_t next_ns = DELAY_QUEUE_NEVER, now = now_ns(CLOCK_MONOTONIC);
        for (size_t i = 0; i < count; i++)
            if (delay_queue_next(&directions[i].queue) < next_ns)
                next_ns = delay_queue_next(&directions[i].queue);
        uint64_t wait_ns = next_ns > now ? next_ns - now : 0;
        struct timespec limit = { .tv_sec = (time_t)(wait_ns / SECOND_NS), .tv_nsec = (long)(wait_ns % SECOND_NS) };
        int ready = ppoll(polls, count, next_ns == DELAY_QUEUE_NEVER ? NULL : &limit, &waiting);
        if (ready < 0 && errno != EINTR)
            die("ppoll");
        for (size_t i = 0; i < count; i++) {
            if (ready > 0 && polls[i].revents) /* an error, too, is taken off the socket by reading */
                receive(&directions[i]);
            release(&directions[i]);
        }
    }
    write_stats(argv[1], directions, count);
    return 0;
}
