/*
 * reason.h - why a connection failed, in words that fit a tally.
 */
#ifndef FC_REASON_H
#define FC_REASON_H

#include <stddef.h>

/* Says what an errno of a socket call means for a load client.  Returns `text`, or a constant. */
const char *fc_reason(int error, char *text, size_t room);

#endif
