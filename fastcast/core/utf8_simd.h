/* UTF-8 validation a vector at a time, for utf8.c on x86-64 with AVX2 and on AArch64. */
#ifndef FC_UTF8_SIMD_H
#define FC_UTF8_SIMD_H

#include <stddef.h>
#include <stdint.h>

/* How far back a byte depends on others: a character has at most three bytes before its last. */
#define FC_UTF8_SIMD_BEHIND 3

/* Goes on at bytes[at], where at >= FC_UTF8_SIMD_BEHIND, all before it is valid and `at` cuts no character.
 * Returns how far the text was found to be valid: an offset in [at, n] that cuts no character either.
 *
 * It only ever affirms. What it leaves is for the caller to examine byte by byte: less than a vector and a
 * character before the first error, a character cut by the end of otherwise valid text, or everything, where
 * there's no room for a vector and the FC_UTF8_SIMD_BEHIND bytes before it or the processor lacks the
 * instructions. */
size_t fc_utf8_simd_advance(const uint8_t *bytes, size_t at, size_t n);

#endif
