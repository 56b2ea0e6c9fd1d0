/*
 * payload.c - writes and checks payloads.  Pure functions of their arguments: no state, no allocation, any
 * thread.
 */
#include "payload.h"

#include <endian.h>
#include <string.h>

#define MAGIC 0x74734346u
#define HEAD 32u
#define STRIDE 0x9e3779b97f4a7c15u

/* The head as it stands in memory on a little-endian machine; packed by its own layout. */
struct head {
    uint32_t magic;
    uint32_t sender;
    uint64_t sequence;
    uint64_t sent_ns;
    uint32_t checksum;
    uint32_t seed;
};
_Static_assert(sizeof(struct head) == HEAD, "the head has no padding");

/* How a word of the fill is brought into the alphabet of its message. */
struct alphabet {
    uint64_t keep;
    uint64_t set;
};
static const struct alphabet BINARY = {UINT64_MAX, 0};
static const struct alphabet TEXT = {0x0f0f0f0f0f0f0f0fu, 0x6060606060606060u};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 32;
    return x;
}

static uint32_t seed_of(uint32_t sender, uint64_t sequence)
{
    return (uint32_t)mix(((uint64_t)sender << 40) ^ sequence ^ STRIDE);
}

static uint32_t checksum_of(const struct head *head)
{
    uint64_t x = mix(((uint64_t)head->magic << 32 | head->sender) + STRIDE);
    x = mix((x ^ head->sequence) + STRIDE);
    x = mix((x ^ head->sent_ns) + STRIDE);
    return (uint32_t)mix((x ^ head->seed) + STRIDE);
}

static struct head swap(struct head head)
{
    head.magic = htole32(head.magic);
    head.sender = htole32(head.sender);
    head.sequence = htole64(head.sequence);
    head.sent_ns = htole64(head.sent_ns);
    head.checksum = htole32(head.checksum);
    head.seed = htole32(head.seed);
    return head;
}

static void to_hex(uint8_t *out, const uint8_t *bytes)
{
    for (unsigned i = 0; i < HEAD; i++) {
        out[2 * i] = (uint8_t)"0123456789abcdef"[bytes[i] >> 4];
        out[2 * i + 1] = (uint8_t)"0123456789abcdef"[bytes[i] & 15];
    }
}

/* The value of a digit; 16 or more for anything else, upper case included, since the writer never uses it. */
static unsigned digit(uint8_t c)
{
    unsigned decimal = c - (unsigned)'0';
    unsigned letter = c - (unsigned)'a';
    return decimal < 10 ? decimal : letter < 6 ? letter + 10 : 16;
}

static bool from_hex(uint8_t *bytes, const uint8_t *in)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < HEAD; i++) {
        unsigned high = digit(in[2 * i]);
        unsigned low = digit(in[2 * i + 1]);
        wrong |= (high | low) & 16;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return wrong == 0;
}

/* Successive words differ by an odd constant: cheap to produce eight bytes at a time, and neither a flipped
 * bit nor a shift by any number of bytes goes unseen. */
static void write_fill(uint8_t *out, size_t size, uint32_t seed, const struct alphabet *alphabet)
{
    uint64_t value = seed * STRIDE;
    for (; size > 0; value += STRIDE) {
        uint64_t word = htole64((value & alphabet->keep) | alphabet->set);
        size_t part = size < sizeof word ? size : sizeof word;
        memcpy(out, &word, part);
        out += part;
        size -= part;
    }
}

static bool check_fill(const uint8_t *bytes, size_t size, uint32_t seed, const struct alphabet *alphabet)
{
    uint64_t value = seed * STRIDE;
    uint64_t keep = alphabet->keep;
    uint64_t set = alphabet->set;
    uint64_t wrong = 0;
    size_t words = size / sizeof(uint64_t);
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, bytes + i * sizeof word, sizeof word);
        wrong |= le64toh(word) ^ (((value + i * STRIDE) & keep) | set);
    }
    size_t rest = size % sizeof(uint64_t);
    if (rest > 0) {
        uint64_t expected = htole64(((value + words * STRIDE) & keep) | set);
        wrong |= (uint64_t)(memcmp(bytes + size - rest, &expected, rest) != 0);
    }
    return wrong == 0;
}

void fc_payload_write(uint8_t *out, size_t size, bool text, const struct fc_payload_head *head)
{
    struct head own = {
        .magic = MAGIC,
        .sender = head->sender,
        .sequence = head->sequence,
        .sent_ns = head->sent_ns,
        .seed = seed_of(head->sender, head->sequence),
    };
    own.checksum = checksum_of(&own);
    struct head wire = swap(own);
    if (text) {
        to_hex(out, (const uint8_t *)&wire);
        write_fill(out + FC_PAYLOAD_MIN_TEXT, size - FC_PAYLOAD_MIN_TEXT, own.seed, &TEXT);
    } else {
        memcpy(out, &wire, sizeof wire);
        write_fill(out + FC_PAYLOAD_MIN_BINARY, size - FC_PAYLOAD_MIN_BINARY, own.seed, &BINARY);
    }
}

bool fc_payload_check(const uint8_t *bytes, size_t size, bool text, bool fill, struct fc_payload_head *head)
{
    size_t min = text ? FC_PAYLOAD_MIN_TEXT : FC_PAYLOAD_MIN_BINARY;
    struct head wire;
    if (size < min)
        return false;
    if (!text)
        memcpy(&wire, bytes, sizeof wire);
    else if (!from_hex((uint8_t *)&wire, bytes))
        return false;
    struct head own = swap(wire);
    head->sender = own.sender;
    head->sequence = own.sequence;
    head->sent_ns = own.sent_ns;
    if (own.magic != MAGIC || own.seed != seed_of(own.sender, own.sequence) ||
        own.checksum != checksum_of(&own)) {
        return false;
    }
    return !fill || check_fill(bytes + min, size - min, own.seed, text ? &TEXT : &BINARY);
}
