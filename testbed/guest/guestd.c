/*
 * guestd: what a measurement wants from a guest, in one static program that is also the last thing PID 1 runs.
 *
 *   UDP and TCP port 7   echo (RFC 862)
 *   TCP port 8           control: one line in, one line of key=value out
 *
 *     info               who am I, and how is my memory
 *     dirty MIB RATE     keep a working set of MIB and rewrite RATE MiB of it a second; "dirty 0 0" frees it
 *     verify             check every page of the working set now
 *     disk write SEED MIB    fill the first MIB of the disk with what follows from SEED, down to the disk itself
 *     disk sum MIB           the checksum of the first MIB, as the disk itself has them
 *     probe ADDRESS PORT     send a datagram there, and tell whether it is answered
 *     call PORT COUNT INTERVAL_MS DELAY_MS
 *                        send numbered datagrams (64 bits, big endian) to who asks, when some time has passed
 *
 * A page of the working set holds 512 words that follow from its number and from how often it was written, so a
 * page that was lost, swapped or brought back from the past on the way to another host gives itself away. Each page
 * is checked in full before it is rewritten.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    ECHO_PORT = 7,
    CONTROL_PORT = 8,
    PAGE_BYTES = 4096,
    PAGE_WORDS = PAGE_BYTES / sizeof(uint64_t),
    PAGES_PER_MIB = (1 << 20) / PAGE_BYTES,
    BATCH_PAGES = 64,
    RECEIVE_BUFFER_BYTES = 8 << 20,
    CONTROL_TIMEOUT_S = 5,
    DISK_BLOCK_BYTES = 1 << 20,
    PROBES = 3,
};

/* ---------------------------------------------------------------- the working set */

static struct {
    pthread_mutex_t lock;
    uint64_t *memory;
    uint64_t *writes; /* of each page */
    size_t pages;
    size_t next;
    double pages_per_second;
    uint64_t written;
    uint64_t corrupt;
} set = {.lock = PTHREAD_MUTEX_INITIALIZER};

static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The splitmix64 finaliser: neighbouring inputs give unrelated words. */
static uint64_t word_of(size_t page, uint64_t write, size_t index)
{
    uint64_t x = ((uint64_t)page << 40) ^ (write << 9) ^ index;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void write_page(size_t page)
{
    uint64_t *words = set.memory + page * PAGE_WORDS;
    uint64_t write = ++set.writes[page];
    for (size_t i = 0; i < PAGE_WORDS; i++)
        words[i] = word_of(page, write, i);
    set.written++;
}

static int page_is_whole(size_t page)
{
    const uint64_t *words = set.memory + page * PAGE_WORDS;
    for (size_t i = 0; i < PAGE_WORDS; i++)
        if (words[i] != word_of(page, set.writes[page], i))
            return 0;
    return 1;
}

static void *map_bytes(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Gives 0, or -1 where the guest has not that much memory; then there is no working set. */
static int set_working_set(size_t mib, double mib_per_second)
{
    if (set.memory)
        munmap(set.memory, set.pages * PAGE_BYTES);
    if (set.writes)
        munmap(set.writes, set.pages * sizeof(uint64_t));
    set.memory = set.writes = NULL;
    set.pages = set.next = set.written = set.corrupt = 0;
    set.pages_per_second = mib_per_second * PAGES_PER_MIB;
    if (!mib)
        return 0;
    size_t pages = mib * PAGES_PER_MIB;
    uint64_t *memory = map_bytes(pages * PAGE_BYTES), *writes = map_bytes(pages * sizeof(uint64_t));
    if (!memory || !writes) {
        if (memory)
            munmap(memory, pages * PAGE_BYTES);
        if (writes)
            munmap(writes, pages * sizeof(uint64_t));
        return -1;
    }
    set.memory = memory;
    set.writes = writes;
    set.pages = pages;
    for (size_t page = 0; page < pages; page++)
        write_page(page);
    return 0;
}

static size_t verify_all(void)
{
    size_t corrupt = 0;
    for (size_t page = 0; page < set.pages; page++)
        corrupt += !page_is_whole(page);
    return corrupt;
}

static void *keep_dirtying(void *unused)
{
    double due = now_s(CLOCK_MONOTONIC);
    for (;;) {
        double pause = 0.02;
        pthread_mutex_lock(&set.lock);
        if (set.pages && set.pages_per_second > 0) {
            for (int i = 0; i < BATCH_PAGES; i++) {
                if (!page_is_whole(set.next))
                    set.corrupt++;
                write_page(set.next);
                set.next = (set.next + 1) % set.pages;
            }
            double now = now_s(CLOCK_MONOTONIC);
            due += BATCH_PAGES / set.pages_per_second;
            if (due < now - 0.5) /* a stop, or more than this machine can do: catch up is no aim */
                due = now;
            pause = due - now;
        } else {
            due = now_s(CLOCK_MONOTONIC);
        }
        pthread_mutex_unlock(&set.lock);
        if (pause > 0)
            usleep((useconds_t)(pause * 1e6));
        else
            sched_yield();
    }
    return unused;
}

/* ---------------------------------------------------------------- sockets */

static void die(const char *what)
{
    fprintf(stderr, "guestd: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int bound_socket(int kind, uint16_t port)
{
    int one = 1, s = socket(AF_INET, kind, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (s < 0)
        die("socket");
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (struct sockaddr *)&here, sizeof here))
        die("bind");
    if (kind == SOCK_STREAM && listen(s, 64))
        die("listen");
    return s;
}

static void start(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument) == 0)
        pthread_detach(thread);
}

static void *echo_datagrams(void *unused)
{
    static char datagram[65536];
    int buffer = RECEIVE_BUFFER_BYTES, s = bound_socket(SOCK_DGRAM, ECHO_PORT);
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    for (;;) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(s, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &length);
        if (got >= 0)
            sendto(s, datagram, (size_t)got, 0, (struct sockaddr *)&from, length);
    }
    return unused;
}

static void *echo_stream(void *argument)
{
    char bytes[PAGE_BYTES];
    int one = 1, s = (int)(intptr_t)argument;
    ssize_t got;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while ((got = read(s, bytes, sizeof bytes)) > 0)
        for (ssize_t sent = 0, more; sent < got; sent += more)
            if ((more = write(s, bytes + sent, (size_t)(got - sent))) <= 0)
                goto out;
out:
    close(s);
    return NULL;
}

static void *accept_streams(void *unused)
{
    int listener = bound_socket(SOCK_STREAM, ECHO_PORT);
    for (;;) {
        int s = accept(listener, NULL, NULL);
        if (s >= 0)
            start(echo_stream, (void *)(intptr_t)s);
    }
    return unused;
}

/* ---------------------------------------------------------------- the disk */

static uint64_t block[DISK_BLOCK_BYTES / sizeof(uint64_t)] __attribute__((aligned(PAGE_BYTES)));

/* Around the guest's own cache. Gives 0, or -1 where there is no such disk or it is too small. */
static int disk_write(unsigned long seed, unsigned long mib)
{
    int disk = open("/dev/vda", O_WRONLY | O_DIRECT), wrong = disk < 0;
    for (unsigned long n = 0; n < mib && !wrong; n++) {
        for (size_t i = 0; i < DISK_BLOCK_BYTES / sizeof *block; i++)
            block[i] = word_of(n, seed, i);
        wrong = write(disk, block, DISK_BLOCK_BYTES) != DISK_BLOCK_BYTES;
    }
    wrong |= disk >= 0 && fdatasync(disk);
    if (disk >= 0)
        close(disk);
    return wrong ? -1 : 0;
}

static int disk_sum(unsigned long mib, uint64_t *sum)
{
    int disk = open("/dev/vda", O_RDONLY | O_DIRECT), wrong = disk < 0;
    *sum = 0xcbf29ce484222325u; /* FNV-1a over words */
    for (unsigned long n = 0; n < mib && !wrong; n++) {
        wrong = read(disk, block, DISK_BLOCK_BYTES) != DISK_BLOCK_BYTES;
        for (size_t i = 0; i < DISK_BLOCK_BYTES / sizeof *block; i++)
            *sum = (*sum ^ block[i]) * 0x100000001b3u;
    }
    if (disk >= 0)
        close(disk);
    return wrong ? -1 : 0;
}

/* ---------------------------------------------------------------- others */

static int is_answered(const char *address, unsigned port)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_usec = 500000};
    char answer[16];
    int s = socket(AF_INET, SOCK_DGRAM, 0), answered = 0;
    if (s < 0 || inet_pton(AF_INET, address, &there.sin_addr) != 1)
        return 0;
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (int i = 0; i < PROBES && !answered; i++) {
        sendto(s, "probe", 5, 0, (struct sockaddr *)&there, sizeof there);
        answered = recv(s, answer, sizeof answer, 0) == 5;
    }
    close(s);
    return answered;
}

/* ---------------------------------------------------------------- control */

static char boot_id[64] = "unknown";

static void read_boot_id(void)
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (f && fscanf(f, "%63s", boot_id) != 1)
        strcpy(boot_id, "unknown");
    if (f)
        fclose(f);
}

struct call {
    struct sockaddr_in to;
    unsigned long count, interval_ms, delay_ms;
};

static void sleep_ms(unsigned long ms)
{
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void *make_call(void *argument)
{
    struct call call = *(struct call *)argument;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    free(argument);
    sleep_ms(call.delay_ms);
    for (unsigned long number = 0; s >= 0 && number < call.count; number++, sleep_ms(call.interval_ms)) {
        uint64_t octets = htobe64(number);
        sendto(s, &octets, sizeof octets, 0, (struct sockaddr *)&call.to, sizeof call.to);
    }
    close(s);
    return NULL;
}

static void call_back(int asker, struct call call, uint16_t port)
{
    struct call *kept = malloc(sizeof *kept);
    socklen_t length = sizeof call.to;
    if (!kept || getpeername(asker, (struct sockaddr *)&call.to, &length))
        return free(kept);
    call.to.sin_port = htons(port);
    *kept = call;
    start(make_call, kept);
}

static void answer(int s, const char *line)
{
    unsigned long mib, seed;
    unsigned port;
    uint64_t sum;
    double rate;
    char address[64];
    struct call call;
    if (sscanf(line, "call %u %lu %lu %lu", &port, &call.count, &call.interval_ms, &call.delay_ms) == 4)
        call_back(s, call, (uint16_t)port);
    pthread_mutex_lock(&set.lock);
    if (sscanf(line, "dirty %lu %lf", &mib, &rate) == 2 && set_working_set(mib, rate))
        dprintf(s, "error=memory\n");
    else if (sscanf(line, "disk write %lu %lu", &seed, &mib) == 2 && disk_write(seed, mib) == 0)
        dprintf(s, "written_mib=%lu\n", mib);
    else if (sscanf(line, "disk sum %lu", &mib) == 1 && disk_sum(mib, &sum) == 0)
        dprintf(s, "sum=%016llx\n", (unsigned long long)sum);
    else if (!strncmp(line, "disk", 4))
        dprintf(s, "error=disk\n");
    else if (sscanf(line, "probe %63s %u", address, &port) == 2)
        dprintf(s, "answered=%d\n", is_answered(address, port));
    else if (!strncmp(line, "verify", 6))
        dprintf(s, "boot_id=%s pages=%zu pages_corrupt=%llu\n", boot_id, set.pages,
                (unsigned long long)(set.corrupt + verify_all()));
    else
        dprintf(s,
                "boot_id=%s uptime_s=%.3f working_set_mib=%zu rate_mib_s=%.1f pages_written=%llu pages_corrupt=%llu\n",
                boot_id, now_s(CLOCK_BOOTTIME), set.pages / PAGES_PER_MIB, set.pages_per_second / PAGES_PER_MIB,
                (unsigned long long)set.written, (unsigned long long)set.corrupt);
    pthread_mutex_unlock(&set.lock);
}

int main(void)
{
    struct timeval timeout = {.tv_sec = CONTROL_TIMEOUT_S};
    signal(SIGPIPE, SIG_IGN);
    read_boot_id();
    start(keep_dirtying, NULL);
    start(echo_datagrams, NULL);
    start(accept_streams, NULL);
    int listener = bound_socket(SOCK_STREAM, CONTROL_PORT);
    printf("guestd: ready, boot_id=%s\n", boot_id);
    fflush(stdout);
    for (;;) {
        char line[256];
        int s = accept(listener, NULL, NULL);
        if (s < 0)
            continue;
        setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        ssize_t got = read(s, line, sizeof line - 1);
        if (got > 0) {
            line[got] = 0;
            answer(s, line);
        }
        close(s);
    }
}
