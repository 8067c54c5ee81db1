#include "delay_queue.h"

#include <stdlib.h>
#include <string.h>

bool delay_queue_init(struct delay_queue *queue, uint64_t delay_ns, size_t capacity)
{
    *queue = (struct delay_queue){ .delay_ns = delay_ns, .capacity = capacity };
    queue->ring = calloc(capacity, sizeof *queue->ring);
    return queue->ring != NULL;
}

void delay_queue_free(struct delay_queue *queue)
{
    while (queue->count > 0)
        delay_queue_pop(queue);
    free(queue->ring);
    queue->ring = NULL;
}

bool delay_queue_push(struct delay_queue *queue, uint64_t arrived_ns, const unsigned char *bytes, size_t length)
{
    unsigned char *copy = queue->count < queue->capacity ? malloc(length ? length : 1) : NULL;
    if (copy == NULL) {
        queue->dropped++;
        return false;
    }
    memcpy(copy, bytes, length);

    uint64_t due_ns = arrived_ns + queue->delay_ns;
    if (due_ns < queue->last_due_ns)
        due_ns = queue->last_due_ns;
    queue->last_due_ns = due_ns;

    size_t tail = (queue->head + queue->count) % queue->capacity;
    queue->ring[tail] = (struct delayed_frame){ .due_ns = due_ns, .length = length, .bytes = copy };
    queue->count++;
    return true;
}

uint64_t delay_queue_next(const struct delay_queue *queue)
{
    return queue->count > 0 ? queue->ring[queue->head].due_ns : DELAY_QUEUE_NEVER;
}

const struct delayed_frame *delay_queue_due(const struct delay_queue *queue, uint64_t now_ns)
{
    return queue->count > 0 && queue->ring[queue->head].due_ns <= now_ns ? &queue->ring[queue->head] : NULL;
}

void delay_queue_pop(struct delay_queue *queue)
{
    free(queue->ring[queue->head].bytes);
    queue->ring[queue->head] = (struct delayed_frame){ 0 };
    queue->head = (queue->head + 1) % queue->capacity;
    queue->count--;
}
