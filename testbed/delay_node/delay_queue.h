/* The scheduling core of the delay node: frames wait their time in the order in which they came.
 *
 * No I/O and no clock in here; the caller says what time it is. Times are nanoseconds of one monotonic clock.
 */
#ifndef DELAY_QUEUE_H
#define DELAY_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DELAY_QUEUE_NEVER UINT64_MAX

struct delayed_frame {
    uint64_t due_ns;
    size_t length;
    unsigned char *bytes; /* owned by the queue */
};

struct delay_queue {
    uint64_t delay_ns;
    uint64_t last_due_ns;
    struct delayed_frame *ring;
    size_t capacity, head, count;
    uint64_t dropped; /* frames that found the queue full */
};

/* False when there is no memory. */
bool delay_queue_init(struct delay_queue *queue, uint64_t delay_ns, size_t capacity);
void delay_queue_free(struct delay_queue *queue);

/* Take a copy of a frame that arrived at `arrived_ns`. False, and counted, when the queue is full.
 * A frame never overtakes an earlier one, even when its time stamp claims so. */
bool delay_queue_push(struct delay_queue *queue, uint64_t arrived_ns, const unsigned char *bytes, size_t length);

/* When the first frame is due, or DELAY_QUEUE_NEVER. */
uint64_t delay_queue_next(const struct delay_queue *queue);

/* The first frame if it is due at `now_ns`, else NULL; it stays in the queue until delay_queue_pop. */
const struct delayed_frame *delay_queue_due(const struct delay_queue *queue, uint64_t now_ns);
void delay_queue_pop(struct delay_queue *queue);

#endif
