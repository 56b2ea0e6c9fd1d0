/*
 * payload.h - what a message of the load client says, and the check that every byte of it came through.
 *
 * A payload opens with 32 bytes, little-endian: magic u32, sender u32, sequence u64, time of sending u64 (ns
 * of CLOCK_MONOTONIC), checksum u32 of these fields, seed u32 of the fill.  The fill is a function of sender
 * and sequence, so a receiver needs nothing but the payload to check it.  In a text message the same 32 bytes
 * stand as 64 hexadecimal digits and the fill is made of lower-case ASCII.
 */
#ifndef FC_PAYLOAD_H
#define FC_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FC_PAYLOAD_MIN_BINARY 32u
#define FC_PAYLOAD_MIN_TEXT 64u

struct fc_payload_head {
    uint32_t sender;
    uint64_t sequence;
    uint64_t sent_ns;
};

/* Writes `size` bytes, which is at least FC_PAYLOAD_MIN_BINARY or _TEXT. */
void fc_payload_write(uint8_t *out, size_t size, bool text, const struct fc_payload_head *head);

/* Reads the head; true when the checksum and, if `fill` is set, every byte of the fill are right. */
bool fc_payload_check(const uint8_t *bytes, size_t size, bool text, bool fill, struct fc_payload_head *head);

#endif
